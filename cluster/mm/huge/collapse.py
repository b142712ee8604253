"""MADV_COLLAPSE: small pages become one huge page (mm/khugepaged.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    HUGE_SIZE,
    FrameWords,
    Slots,
    is_huge_word,
    node_of_frame,
)
from cluster.mm.faults import Faults
from cluster.mm.huge.allocate import HugeAllocator, slots_of, words_of
from cluster.mm.huge.mappings import HugeMappings
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import HUGE, KSM, PRESENT, PTE_HWPOISON, PTE_SWAP, SHARED
from cluster.mm.vma import Mm
from cluster.wire.messages import Kind

_LRU_BATCH = 31  # PAGEVEC_SIZE


class Collapser:
    """Copies 512 small pages into a huge page each; rmap_items keep their checksums."""

    def __init__(
        self,
        node: NodeState,
        faults: Faults,
        mappings: HugeMappings,
        huge_allocator: HugeAllocator,
    ) -> None:
        self._n = node
        self._faults = faults
        self._mappings = mappings
        self._huge_allocator = huge_allocator

    def swap_in(self, mm: Mm, start: int, end: int) -> None:
        """Bring back from swap what the collapse of virtual pages [start, end) needs."""
        for low, high in mm.anon_vmas.parts(start, end):
            if not _may_have_huge_pages(mm, low):
                return
            for base in self._bases(mm, low, high):
                slots = np.arange(base, base + HUGE_SIZE)
                if self._may_collapse(slots):
                    lost = np.flatnonzero(self._n.table.pte[slots] == PTE_HWPOISON)
                    slots = slots[: lost[0]] if len(lost) else slots
                    self._faults.swap_in(slots[self._n.table.pte[slots] <= PTE_SWAP])
                    if len(lost):
                        return

    def collapse(self, mm: Mm, start: int, end: int) -> str:
        """Collapse whole huge pages in virtual pages [start, end); return the name of the error, if any."""
        for low, high in mm.anon_vmas.parts(start, end):
            if not _may_have_huge_pages(mm, low):
                return "EINVAL"
            if error := self._collapse_part(mm, low, high):
                return error
        return ""

    @staticmethod
    def _pages(low: int, high: int) -> range:
        return range(-(-low // HUGE_SIZE) * HUGE_SIZE, high // HUGE_SIZE * HUGE_SIZE, HUGE_SIZE)

    def _bases(self, mm: Mm, low: int, high: int) -> list[int]:
        bases: list[int] = self._n.spaces.slots(mm, np.array(self._pages(low, high), np.int64)).tolist()
        return bases

    def _collapse_part(self, mm: Mm, low: int, high: int) -> str:
        """Collapse pages of one VMA; return the last error."""
        error = "EINVAL" if high // HUGE_SIZE < -(-low // HUGE_SIZE) else ""
        #: Frames put back to the LRU last, which have an extra reference.
        lru_batch: list[int] = []
        for base in self._bases(mm, low, high):
            if self._n.huge_pages.by_pmd(np.array([base]))[0]:
                continue
            if not self._mappings.has_table(base):
                return "EINVAL"
            failed = self._collapse_one(np.array([base]), lru_batch)
            if failed == "EFAULT":
                return "EINVAL"
            error = failed or error
        return error

    def _may_collapse(self, slots: Slots) -> bool:
        n = self._n
        if n.huge_pages.by_pmd(slots[:1])[0] or not self._mappings.has_table(int(slots[0])):
            return False
        return n.profile.collapse_read_only or self._any_writable(slots)

    def _any_writable(self, slots: Slots) -> bool:
        table = self._n.table
        state = table.state[slots]
        if ((state & (PRESENT | KSM | SHARED)) == PRESENT).any():
            return True
        small = slots[(state & (PRESENT | KSM | HUGE)) == PRESENT]
        mapped = table.pte[rows_with(table.state[: table.size], SHARED)]
        frames, mappers = np.unique(mapped, return_counts=True)
        alone = np.isin(table.pte[small], frames[mappers == 1])
        return bool((alone & (self._n.swap.entries_of(table.pte[small]) == 0)).any())

    def _collapse_one(self, base: Slots, lru_batch: list[int]) -> str:
        n = self._n
        entries = n.table.pte[slots_of(base)]
        if np.isin(entries, lru_batch).any() or n.fixed(slots_of(base)).any():
            return "EAGAIN"
        if not self._may_collapse(slots_of(base)):
            return "EINVAL"
        n.counters["thp_collapse_alloc"] += 1
        if (entries == PTE_HWPOISON).any():
            return "EFAULT"
        frames = entries[entries >= 0]
        distinct, first = np.unique(frames, return_index=True)
        if len(distinct) < len(frames):
            # The second page of a KSM frame finds it locked.
            repeated = int(np.setdiff1d(np.arange(len(frames)), first)[0])
            _put_back(lru_batch, frames[:repeated][::-1])
            return "EAGAIN"
        _put_back(lru_batch, frames)
        node = np.bincount(node_of_frame(frames), minlength=n.nodes).argmax()
        self._huge_allocator.allocate(base, np.array([node]), self._install)
        return ""

    def _install(self, bases: Slots, first: FrameWords) -> None:
        """Replace small pages by huge pages, into which their contents are copied."""
        n, table = self._n, self._n.table
        n.counters["thp_collapse_alloc_failed"] += int(np.count_nonzero(first < 0))
        slots, frames = slots_of(bases[first >= 0]), words_of(first[first >= 0])
        entries = table.pte[slots]
        private = (table.state[slots] & (PRESENT | KSM)) == PRESENT
        swapped = entries <= PTE_SWAP
        n.out.send(Kind.FILL, node_of_frame(frames[swapped]), frames[swapped], *n.swap.read(entries[swapped]))
        self._faults.touched(slots[~private])
        self._faults.unmap(slots)
        self._mappings.install(bases[first >= 0], first[first >= 0])
        copied = entries >= 0
        n.out.send(Kind.COPY, node_of_frame(entries[copied]), entries[copied], frames[copied])


def _may_have_huge_pages(mm: Mm, page: int) -> bool:
    """Return whether the VMA of a page may have huge pages, has room for one, and was written."""
    start, end = mm.anon_vmas.vma_of(page)
    last = (end - HUGE_SIZE) // HUGE_SIZE * HUGE_SIZE
    return mm.anon_vmas.may_be_huge(page, page) and last >= start and mm.anon_vmas.needs_copy(page)


def _put_back(lru_batch: list[int], frames: FrameWords) -> None:
    """Put isolated pages back to the LRU; a full batch is flushed, and a huge page flushes it."""
    small = frames[~is_huge_word(frames)].tolist()
    lru_batch += small
    del lru_batch[: len(lru_batch) // _LRU_BATCH * _LRU_BATCH]
    if len(small) < len(frames):
        lru_batch.clear()
