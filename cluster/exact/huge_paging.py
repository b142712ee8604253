"""Huge pages: faults, copy-on-write, fork, splitting, collapsing, swap and migration.

A huge page is 512 frames that stay together. A process maps it by one PMD, or by PTEs once that PMD was
split; either way, each page has its own entry in `ExactRegion.pte`. Splitting the page itself leaves 512
small pages.

Sources of the rules: `mm/huge_memory.c` (faults, splits), `mm/khugepaged.c` (MADV_COLLAPSE), `mm/rmap.c`
(partially mapped pages), `mm/memory.c` (copy-on-write), `mm/madvise.c` (page-out), `mm/migrate.c`.
"""

from __future__ import annotations

from collections import Counter

from cluster.exact.objects import ExactMm, ExactRegion, Frame, HugePage, Pte, SwapEntry, ZeroPte
from cluster.exact.paging import ZERO_KEY, Paging, is_alone, is_lost, node_of
from cluster.script.engine import HUGE_PAGES
from cluster.spec.knobs import Counters, ThpCounters
from cluster.spec.profile import Profile

_LRU_BATCH = 31  # PAGEVEC_SIZE


class HugePaging(Paging):
    """Page tables with huge pages."""

    def __init__(self, profile: Profile, counters: Counters, *, swap: bool) -> None:
        super().__init__(profile, counters, swap=swap)
        self.thp = ThpCounters()

    # Faults

    def _read_huge(self, region: ExactRegion, index: int) -> bool:
        if not self._may_fault_huge(region, index):
            return False
        first = index - index % HUGE_PAGES
        region.mm.anon_vmas.prepare(region.start + first)
        region.pte[first : first + HUGE_PAGES] = [ZeroPte.READ] * HUGE_PAGES
        region.huge_zero.add(first // HUGE_PAGES)
        self.thp.thp_zero_page_alloc = 1
        return True

    def _write_huge(self, region: ExactRegion, index: int, content: int, key: int) -> bool:
        pte = region.pte[index]
        if isinstance(pte, Frame) and pte.huge is not None:
            if self._may_reuse(region, index, pte.huge):
                pte.content, pte.key = content, key
            else:
                self.unmap_range(region, index, 1)
                self._map_new(region, index, content, key)
            return True
        block = index // HUGE_PAGES
        if block in region.huge_zero:
            region.huge_zero.remove(block)
            if not self._profile.huge_zero_page_cow:
                self.thp.thp_split_pmd += 1
                return False
        elif not self._may_fault_huge(region, index):
            return False
        self.thp.thp_fault_alloc += 1
        self._map_new_huge(region, block, node_of(region), [(0, ZERO_KEY)] * HUGE_PAGES)
        frame = region.pte[index]
        assert isinstance(frame, Frame)
        frame.content, frame.key = content, key
        return True

    def pin(self, region: ExactRegion, index: int) -> None:
        super().pin(region, index)
        frame = region.pte[index]
        if isinstance(frame, Frame) and frame.huge is not None:
            frame.huge.pinned.append(frame)

    def _may_fault_huge(self, region: ExactRegion, index: int) -> bool:
        """Return whether a fault at the page maps 512 pages: one VMA has them all, and none is mapped yet."""
        block = index // HUGE_PAGES
        address = region.start + block * HUGE_PAGES
        return (
            region.pte[index] is None
            and region.mm.anon_vmas.may_be_huge(address, address + HUGE_PAGES)
            and not _has_page_table(region, block)
        )

    def _map_new_huge(self, region: ExactRegion, block: int, node: int, pages: list[tuple[int, int]]) -> None:
        """Map a new huge page by a PMD; `pages` has the contents and their keys."""
        first = block * HUGE_PAGES
        region.mm.anon_vmas.prepare(region.start + first)
        frames = [self._new_frame(node, content, key) for content, key in pages]
        for index, frame in enumerate(frames, first):
            self.map_frame(region, index, frame)
        region.page_tables.discard(block)
        self._map_pmd(region, block, HugePage(frames))

    def _map_pmd(self, region: ExactRegion, block: int, huge: HugePage) -> None:
        region.pmd[block] = huge
        huge.pmds.add((region, block))

    def _unmap_pmd(self, region: ExactRegion, block: int) -> bool:
        """Forget that a PMD maps a block; return whether one did."""
        huge = region.pmd.pop(block, None)
        if huge is not None:
            huge.pmds.remove((region, block))
            return True
        mapped = block in region.huge_zero
        region.huge_zero.discard(block)
        return mapped

    def _may_reuse(self, region: ExactRegion, index: int, huge: HugePage) -> bool:
        """Return whether a write may use a page as it is; if not, split the PMD that maps it."""
        block, at = divmod(index, HUGE_PAGES)
        if huge.exclusive[at]:
            return True
        if region.pmd.get(block) is huge:
            if all(len(frame.ptes) == 1 for frame in huge.frames):
                huge.exclusive[:] = b"\1" * HUGE_PAGES
                return True
            self.split_pmd(region, block)
        if self._profile.reuse_of_huge_page:
            huge.exclusive[at] = _mappers(huge) == [region.mm]
        else:
            huge.exclusive[at] = sum(len(frame.ptes) for frame in huge.frames) == 1
        return bool(huge.exclusive[at])

    # Splitting

    def split_pmd(self, region: ExactRegion, block: int) -> None:
        """Map a block by PTEs if it is mapped by a PMD."""
        self.thp.thp_split_pmd += self._unmap_pmd(region, block)

    def split_at(self, region: ExactRegion, index: int) -> None:
        """Split the PMD that maps the pages on both sides of a boundary."""
        if index % HUGE_PAGES:
            self.split_pmd(region, index // HUGE_PAGES)

    def split(self, huge: HugePage, *, pinned: bool = False) -> bool:
        """Split a huge page into small pages; return False if that fails.

        Maps its pages of zeros to the shared zero page, wherever they are mapped. It fails if a process has
        pinned it, or the caller (`pinned`).
        """
        if pinned or huge.is_pinned() or not self._unmap_for_split(huge):
            self.thp.thp_split_page_failed += 1
            return False
        for frame in huge.frames:
            frame.huge = None
            if frame.content == 0 and not frame.poisoned and self._profile.split_maps_zero_page:
                for region, index in frame.ptes:
                    region.pte[index] = ZeroPte.READ
                frame.ptes.clear()
        self.thp.thp_split_page += 1
        return True

    def _unmap_for_split(self, huge: HugePage) -> bool:
        """Split the PMDs that map a huge page, in the order of forking; return False if one is in the way."""
        last = _mappers(huge)[-1]
        for region, block in sorted(huge.pmds, key=lambda mapping: mapping[0].mm.number):
            self.split_pmd(region, block)
            if region.mm is last:
                return True
            if self._profile.split_stops_at_pmd:
                return False
        # the last PTEs are cleared one by one
        self._note_partially_mapped(huge)
        return True

    def _note_partially_mapped(self, huge: HugePage) -> None:
        if not huge.partially_mapped:
            huge.partially_mapped = True
            self.thp.thp_deferred_split_page += 1

    # Unmapping

    def unmap_range(self, region: ExactRegion, start: int, count: int) -> None:
        if not region.thp:
            super().unmap_range(region, start, count)
            return
        end = start + count
        self.split_at(region, start)
        self.split_at(region, end)
        for block in range(start // HUGE_PAGES, -(-end // HUGE_PAGES)):
            whole = start <= block * HUGE_PAGES and (block + 1) * HUGE_PAGES <= end
            if not whole or not self._unmap_pmd(region, block):
                self._keep_page_table(region, block, whole=whole)
        for first, behind, huge in _runs(region, start, end):
            before = 0 if huge is None else _unmapped(huge)
            super().unmap_range(region, first, behind - first)
            if huge is not None and before < _unmapped(huge) < HUGE_PAGES:
                self._note_partially_mapped(huge)

    def _keep_page_table(self, region: ExactRegion, block: int, *, whole: bool) -> None:
        """Note that a block keeps its page table, though it may soon have no entries."""
        if whole and self._profile.frees_page_tables:
            region.page_tables.discard(block)
        elif _has_page_table(region, block):
            region.page_tables.add(block)

    # Fork

    def share(self, parent: ExactRegion, child: ExactRegion) -> None:
        for block, huge in list(parent.pmd.items()):
            if huge.is_pinned():
                # its pages are copied
                self.split_pmd(parent, block)
        super().share(parent, child)
        child.thp = parent.thp
        child.page_tables = set(parent.page_tables)
        for block, huge in parent.pmd.items():
            if child.pte[block * HUGE_PAGES] is not None:
                self._map_pmd(child, block, huge)
        child.huge_zero = {block for block in parent.huge_zero if child.pte[block * HUGE_PAGES] is not None}
        if parent.thp:
            for index, pte in enumerate(child.pte):
                if isinstance(pte, Frame) and pte.huge is not None:
                    pte.huge.exclusive[index % HUGE_PAGES] = 0

    # MADV_COLLAPSE

    def collapse(self, region: ExactRegion, start: int, count: int) -> str:
        """Copy each block to a new huge page, mapped by a PMD; return the name of the last error, if any."""
        first, behind = -(-start // HUGE_PAGES), (start + count) // HUGE_PAGES
        error = "EINVAL" if behind < first else ""
        lru_batch: list[Frame] = []
        for block in range(first, behind):
            if region.mapped_by_pmd(block * HUGE_PAGES):
                continue
            if not _has_page_table(region, block):
                return "EINVAL"
            failed = self._collapse_block(region, block, lru_batch)
            if failed == "EFAULT":
                return "EINVAL"
            error = failed or error
        return error

    def _collapse_block(self, region: ExactRegion, block: int, lru_batch: list[Frame]) -> str:
        """Collapse 512 pages; return the name of the error, EFAULT if the memory of one of them has failed.

        `lru_batch` has the pages put back last, which have an extra reference.
        """
        first = block * HUGE_PAGES
        if error := self._scan_before_collapse(region, first, lru_batch):
            return error
        self.thp.thp_collapse_alloc += 1
        ptes = region.pte[first : first + HUGE_PAGES]
        if any(is_lost(pte) for pte in ptes):
            return "EFAULT"
        frames = [pte for pte in ptes if isinstance(pte, Frame)]
        isolated: dict[Frame, None] = {}
        for frame in frames:
            if frame in isolated:
                # the second page of a KSM frame finds it locked
                _put_back(lru_batch, list(isolated)[::-1])
                return "EAGAIN"
            isolated[frame] = None
        pages = [(pte.content, pte.key) if isinstance(pte, Frame) else (0, ZERO_KEY) for pte in ptes]
        on_node = Counter(frame.node for frame in frames)
        node = min(on_node, key=lambda node: (-on_node[node], node), default=0)
        self.unmap_range(region, first, HUGE_PAGES)
        _put_back(lru_batch, frames)
        self._map_new_huge(region, block, node, pages)
        return ""

    def _scan_before_collapse(self, region: ExactRegion, first: int, lru_batch: list[Frame]) -> str:
        """Return why 512 pages cannot be collapsed, before anything is allocated; swap them in.

        This ends at a page whose memory has failed.
        """
        indices = range(first, first + HUGE_PAGES)
        frames = [pte for pte in region.pte[first : first + HUGE_PAGES] if isinstance(pte, Frame)]
        if any(frame in lru_batch or _is_pinned(frame) for frame in frames):
            return "EAGAIN"
        if not self._profile.collapse_read_only and not any(_is_writable(region, i) for i in indices):
            return "EINVAL"
        for index in indices:
            if is_lost(region.pte[index]):
                break
            if isinstance(region.pte[index], SwapEntry):
                self.read(region, index)
        return ""

    # Swap and migration

    def page_out_range(self, region: ExactRegion, start: int, count: int) -> None:
        if not region.thp:
            super().page_out_range(region, start, count)
            return
        for first, behind, _ in _runs(region, start, start + count):
            # a run before may have split it
            huge = _huge_page(region.pte[first])
            if huge is None:
                super().page_out_range(region, first, behind - first)
            elif all(len(frame.ptes) < 2 for frame in huge.frames):
                self._page_out_huge(region, first, behind - first, huge)

    def _page_out_huge(self, region: ExactRegion, first: int, count: int, huge: HugePage) -> None:
        """Write pages of a huge page to swap: split it first, but not if they are the whole of it."""
        if huge.is_pinned():
            return
        if count < HUGE_PAGES:
            self.split(huge)
        elif self._swap:
            self.split_pmd(region, first // HUGE_PAGES)
            for frame in huge.frames:
                frame.huge = None
        super().page_out_range(region, first, count)

    def migrate(self, frame: Frame, node: int) -> bool:
        huge = frame.huge
        if huge is None:
            return super().migrate(frame, node)
        if huge.is_pinned() or any(part.poisoned for part in huge.frames):
            return False
        if huge.partially_mapped:
            self.split(huge)
            for part in huge.frames:
                if part.ptes:
                    self._move(part, node)
            return True
        huge.frames = [self._move(part, node) for part in huge.frames]
        for part in huge.frames:
            part.huge = huge
        return True


def _has_page_table(region: ExactRegion, block: int) -> bool:
    """Return whether a block that no PMD maps has a page table."""
    first = block * HUGE_PAGES
    ptes = region.pte[first : first + HUGE_PAGES]
    return block in region.page_tables or any(pte is not None for pte in ptes)


def _put_back(lru_batch: list[Frame], frames: list[Frame]) -> None:
    """Put isolated pages back to the LRU list; a full batch is flushed, and a huge page flushes it."""
    for frame in frames:
        if frame.huge is None:
            lru_batch.append(frame)
            if len(lru_batch) == _LRU_BATCH:
                lru_batch.clear()
    if any(frame.huge for frame in frames):
        lru_batch.clear()


def _is_pinned(frame: Frame) -> bool:
    return frame.pinned if frame.huge is None else frame.huge.is_pinned()


def _mappers(huge: HugePage) -> list[ExactMm]:
    """Return the processes that map pages of a huge page, in the order of forking."""
    mms = {region.mm for frame in huge.frames for region, _ in frame.ptes}
    return sorted(mms, key=lambda mm: mm.number)


def _unmapped(huge: HugePage) -> int:
    """Return how many of its pages no process maps any more."""
    return sum(not frame.ptes for frame in huge.frames)


def _runs(region: ExactRegion, start: int, end: int) -> list[tuple[int, int, HugePage | None]]:
    """Return the pages [start, end) in runs: the first, the one behind the last, and their huge page."""
    runs: list[tuple[int, int, HugePage | None]] = []
    for index in range(start, end):
        huge = _huge_page(region.pte[index])
        if runs and runs[-1][2] is huge:
            runs[-1] = runs[-1][0], index + 1, huge
        else:
            runs.append((index, index + 1, huge))
    return runs


def _huge_page(pte: Pte) -> HugePage | None:
    return pte.huge if isinstance(pte, Frame) else None


def _is_writable(region: ExactRegion, index: int) -> bool:
    """Return whether the page table entry allows writes."""
    pte = region.pte[index]
    if not isinstance(pte, Frame):
        return False
    return is_alone(pte) if pte.huge is None else bool(pte.huge.exclusive[index % HUGE_PAGES])
