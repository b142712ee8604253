"""Frames of processes in memory that compaction works on: LRU pages, anonymous ones and KSM pages."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import (
    FRAME_BITS,
    HUGE_FRAME,
    HUGE_ORDER,
    HUGE_SIZE,
    I64,
    Array,
    Bool,
    FrameWords,
    Pfns,
    frame_word,
    generation_of,
    pfn_of,
)
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import NEVER_MOVES, IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import PageKind, pages_of_blocks
from cluster.mm.frames import PAGE_MAPPING_ANON, PAGE_MAPPING_KSM, Frames
from cluster.wire.rmap_walks import NO_WALKS

#: Names of processes' pages among the drivers of a report.
ANON_PAGES, KSM_PAGES = "anon", "ksm"


class MovableFrames(Frames, LruPages):
    """Frames that come from a node's buddy allocator and that compaction moves, columns and all.

    In the memory's page map a frame has one reference, however many mappings and pins it has here. KSM frames
    have an owner number of their own there. int64 `generation`: of the frame's word, 0 for private frames.

    A huge page is a block of the buddy allocator, and keeps all of its frames until none of them is in use,
    or it is split: a frame that has lost its last mapping before is neither in use nor free.
    """

    def __init__(self, memory: Memory, *, with_bytes: bool) -> None:
        Frames.__init__(self, memory.pages.count, with_bytes=with_bytes)
        LruPages.__init__(self, memory)
        self._ksm_owner = memory.register(self)
        self.generation = np.zeros(self.count, np.int64)
        self.begin()

    def begin(self) -> None:
        """Forget how frames are held and which have moved, before a compaction."""
        #: mappings that reverse mapping does not find; references of the swap cache
        self.unfound = np.zeros(self.count, np.int64)
        self.cached = np.zeros(self.count, np.int64)
        #: pfn of the frame at the last `begin`
        self._came_from = np.arange(self.count)
        self.walks = NO_WALKS

    def moved(self, node: int) -> tuple[I64, I64]:
        """Return the frames that have moved since `begin`: their old words on this `node`, and their pfns."""
        pfns = np.flatnonzero(self.referenced(slice(None)) & (self._came_from != np.arange(self.count)))
        return frame_word(node, self._came_from[pfns]) | (self.generation[pfns] << FRAME_BITS), pfns

    def words(self, node: int, pfns: Pfns) -> FrameWords:
        """Return the words of these frames on this `node`. int64[n] -> int64[n]."""
        words = frame_word(node, pfns) | (self.generation[pfns] << FRAME_BITS)
        pages = self.memory.pages
        return words | np.where(pages.huge[pfns >> HUGE_ORDER], HUGE_FRAME, 0) if pages.any_huge else words

    # LruPages

    @property
    def owners(self) -> dict[str, int]:
        return {ANON_PAGES: self.owner, KSM_PAGES: self._ksm_owner}

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        """Refuse pages with extra references (isolate_migratepages_block)."""
        pinned = self._pinned(pages)
        super().isolate_page(pages[~pinned], mode)
        return ~pinned

    def _pinned(self, pages: I64) -> Bool:
        pinned: Bool = self.pins[pages] > self.cached[pages]
        return pinned

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        """Answer -EAGAIN for a page that is still mapped after try_to_migrate()."""
        answers = np.where(self.unfound[pages] > 0, -errno.EAGAIN, 0)
        if answers.any():
            first = int(np.argmax(answers != 0))
            self._walk(pages[first : first + 1])
            answers, newpages, pages = answers[: first + 1], newpages[:first], pages[:first]
        self._walk(pages)
        super().migrate_page(newpages, pages, mode)
        columns: list[Array] = [self.mapping, self.mapcount, self.pins, self.content, self.generation]
        for column in [*columns, self._came_from, *([] if self.data is None else [self.data])]:
            column[newpages] = column[pages]
        self._forget(pages)
        return answers

    def predict_retries(self, pages: I64, mode: MigrateMode) -> I64 | None:
        if self._pinned(pages).any():
            return None
        return np.where(self.unfound[pages] > 0, NEVER_MOVES, 0)

    def tried(self, pages: I64, times: I64) -> None:
        """Count the walks of attempts that fail."""
        self._walk(pages, times)

    def _walk(self, pages: I64, times: I64 | None = None) -> None:
        """Count walks over those of these pages that are KSM frames; by default one each."""
        ksm = self.generation[pages] != 0
        mappings = self.mapcount[pages[ksm]] - self.unfound[pages[ksm]]
        self.walks = self.walks.plus(mappings, 1 if times is None else times[ksm])

    # Frames

    @property
    def free_count(self) -> int:
        return sum(zone.free_pages for zone in self.memory.zones)

    @property
    def _ever_used(self) -> slice:
        return slice(None)

    def alloc(self, wanted: int) -> I64:
        pfns = self.memory.alloc_bulk(wanted)
        self.memory.pages.set_kind(pfns, PageKind.LRU)
        self.adopt(pfns, PAGE_MAPPING_ANON)
        return pfns

    def alloc_huge(self, wanted: int) -> I64:
        pfns = self.memory.alloc_bulk(wanted << HUGE_ORDER, order=HUGE_ORDER)[::HUGE_SIZE]
        if len(pfns):
            self.memory.pages.make_huge(pfns >> HUGE_ORDER, self.owner)
        return pfns

    def split_huge(self, first: I64) -> None:
        blocks = first >> HUGE_ORDER
        self.memory.pages.unmake_huge(blocks)
        pfns = pages_of_blocks(blocks)
        used = self.referenced(pfns)
        self.memory.put(pfns[~used])
        self.memory.pages.set_kind(pfns[used], PageKind.LRU)
        self.adopt(pfns[used], PAGE_MAPPING_ANON)

    @property
    def free_huge(self) -> int:
        """How many huge pages could be allocated."""
        return self.memory.free_blocks(HUGE_ORDER)

    def make_ksm(self, frames: I64) -> None:
        super().make_ksm(frames)
        pfns = pfn_of(frames)
        self.generation[pfns] = generation_of(frames)
        self.memory.pages.set_mapping(pfns, self._ksm_owner, PAGE_MAPPING_KSM)

    def _free(self, pfns: I64) -> None:
        self._forget(pfns)
        self.memory.put(self._given_back(pfns) if self.memory.pages.any_huge else pfns)

    def _given_back(self, pfns: Pfns) -> Pfns:
        """Return the frames that go to the buddy allocator with these: of huge pages, all or none."""
        pages = self.memory.pages
        in_huge = pages.huge[pfns >> HUGE_ORDER]
        blocks = np.unique(pfns[in_huge] >> HUGE_ORDER)
        used = self.referenced(pages_of_blocks(blocks)).reshape(-1, HUGE_SIZE).any(axis=1)
        pages.unmake_huge(blocks[~used])
        return np.concatenate([pfns[~in_huge], pages_of_blocks(blocks[~used])])

    def _forget(self, pfns: I64) -> None:
        self._ksm_frames = None
        self.mapping[pfns] = 0
        self.pins[pfns] = 0
        self.mapcount[pfns] = 0
        self.generation[pfns] = 0
