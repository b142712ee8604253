"""Page tables: faults, copy-on-write, fork, unmapping, swap and migration.

Sources of the rules: `mm/memory.c` (faults, copy-on-write, fork), `mm/madvise.c` (page-out), `mm/migrate.c`
(move_pages), and `break_ksm`, `rmap_walk_ksm` and `folio_migrate_ksm` in `mm/ksm.c`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from cluster.exact.objects import ExactRegion, Frame, HwPoisonPte, Pte, SwapEntry, ZeroPte
from cluster.script.engine import HUGE_PAGES
from cluster.spec.knobs import Counters
from cluster.spec.profile import Profile

ZERO_KEY = -1  #: `cluster.spec.content.page_key` of the page of zeros


class Paging(ABC):
    """Allocates frames and changes page table entries; knows nothing of ksmd's trees.

    The rules of huge pages are those of its subclass, `cluster.exact.huge_paging.HugePaging`.
    """

    def __init__(self, profile: Profile, counters: Counters, *, swap: bool) -> None:
        self._profile = profile
        self._counters = counters
        self._swap = swap
        #: 0 is the shared zero page; the huge zero page comes next
        self._next_pfn = 1 + HUGE_PAGES

    def write(self, region: ExactRegion, index: int, content: int, key: int) -> None:
        """Write a whole page, with a write fault if one is needed."""
        if region.thp and self._write_huge(region, index, content, key):
            return
        pte = region.pte[index]
        if isinstance(pte, Frame) and is_alone(pte):
            pte.content, pte.key = content, key
            return
        self._add_to_cow_ksm(pte)
        self.unmap(region, index)
        self._map_new(region, index, content, key)

    def pin(self, region: ExactRegion, index: int) -> None:
        """Give a page a frame of its own, as a write does, and pin it."""
        pte = region.pte[index]
        held = pte if isinstance(pte, Frame | SwapEntry) else None
        self.write(region, index, held.content if held else 0, held.key if held else -1)
        frame = region.pte[index]
        assert isinstance(frame, Frame)
        frame.pinned = True

    def read(self, region: ExactRegion, index: int) -> None:
        """Read a page, with a read fault if one is needed."""
        if region.thp and self._read_huge(region, index):
            return
        pte = region.pte[index]
        if pte is None:
            region.pte[index] = ZeroPte.READ
        elif isinstance(pte, SwapEntry):
            self._swap_in(region, index, pte)

    def break_ksm(self, region: ExactRegion, index: int) -> None:
        """Give the page a frame of its own if KSM merged it."""
        pte = region.pte[index]
        if isinstance(pte, Frame):
            if pte.ksm:
                self.write(region, index, pte.content, pte.key)
        elif pte is ZeroPte.KSM and self._profile.track_zero_pages:
            self.write(region, index, 0, ZERO_KEY)

    def map_frame(self, region: ExactRegion, index: int, frame: Frame) -> None:
        """Point an empty page table entry at a frame."""
        region.pte[index] = frame
        frame.ptes.add((region, index))

    def map_zero_page(self, region: ExactRegion, index: int) -> None:
        """Replace a page by the shared zero page, for ksmd."""
        self.unmap(region, index)
        region.pte[index] = ZeroPte.KSM
        region.mm.zero_pages += 1
        self._counters.ksm_zero_pages += 1

    def unmap(self, region: ExactRegion, index: int) -> None:
        """Clear a page table entry, and free its frame or swap entry if that was the last reference."""
        pte = region.pte[index]
        region.pte[index] = None
        if isinstance(pte, Frame):
            pte.ptes.remove((region, index))
            _free_if_unused(pte)
        elif isinstance(pte, SwapEntry):
            _put_swap(pte)
        elif pte is ZeroPte.KSM:
            region.mm.zero_pages -= 1
            self._counters.ksm_zero_pages -= 1

    def unmap_range(self, region: ExactRegion, start: int, count: int) -> None:
        """Clear page table entries."""
        for index in range(start, start + count):
            self.unmap(region, index)

    def share(self, parent: ExactRegion, child: ExactRegion) -> None:
        """Copy page table entries at fork if their VMA has an anon_vma: parent and child share the frames."""
        for index, pte in enumerate(parent.pte):
            if pte is None or not parent.mm.anon_vmas.needs_copy(parent.start + index):
                continue
            if isinstance(pte, Frame):
                if pte.pinned or (pte.huge is not None and pte.huge.is_pinned()):
                    self._map_new(child, index, pte.content, pte.key)
                else:
                    self.map_frame(child, index, pte)
                continue
            child.pte[index] = pte
            if isinstance(pte, SwapEntry):
                pte.count += 1
            elif pte is ZeroPte.KSM:
                child.mm.zero_pages += 1
                self._counters.ksm_zero_pages += not self._profile.fork_misses_zero_pages

    def page_out(self, region: ExactRegion, index: int) -> None:
        """Write a page to swap, if this is its only mapping."""
        frame = region.pte[index]
        if not self._swap or not isinstance(frame, Frame) or len(frame.ptes) > 1 or not _may_leave(frame):
            return
        entry = (
            frame.swap if frame.swap is not None and frame.swap.count else SwapEntry(frame.content, frame.key)
        )
        entry.frame = None
        frame.swap = None
        entry.count += 1
        self.unmap(region, index)
        region.pte[index] = entry

    def page_out_range(self, region: ExactRegion, start: int, count: int) -> None:
        """Write pages to swap."""
        for index in range(start, start + count):
            self.page_out(region, index)

    def migrate(self, frame: Frame, node: int) -> bool:
        """Move a frame to another node, with all its mappings; return False if that is impossible."""
        if not _may_leave(frame):
            return False
        self._move(frame, node)
        return True

    def _move(self, frame: Frame, node: int) -> Frame:
        """Copy a frame to another node, and point its mappings at the copy."""
        new = self._new_frame(node, frame.content, frame.key)
        new.ksm, new.stable_node, new.swap = frame.ksm, frame.stable_node, frame.swap
        if new.stable_node is not None:
            new.stable_node.frame = new
        if new.swap is not None:
            new.swap.frame = new
        new.ptes, frame.ptes = frame.ptes, set()
        for region, index in new.ptes:
            region.pte[index] = new
        frame.swap = None
        _free_if_unused(frame)
        return new

    @abstractmethod
    def _write_huge(self, region: ExactRegion, index: int, content: int, key: int) -> bool:
        """Write a page of a huge page, or of one that this write allocates; return whether it was one."""

    @abstractmethod
    def _read_huge(self, region: ExactRegion, index: int) -> bool:
        """Map the huge zero page if this is the first touch of 512 pages; return whether it was."""

    def _add_to_cow_ksm(self, pte: Pte) -> None:
        """Count a copy-on-write break (cow_ksm), if the page is a KSM page."""
        frame = pte.frame if isinstance(pte, SwapEntry) else pte
        if isinstance(frame, Frame) and frame.ksm:
            self._counters.cow_ksm += 1

    def _map_new(self, region: ExactRegion, index: int, content: int, key: int) -> None:
        region.mm.anon_vmas.prepare(region.start + index)
        self.map_frame(region, index, self._new_frame(node_of(region), content, key))

    def _new_frame(self, node: int, content: int, key: int) -> Frame:
        pfn = self._next_pfn
        self._next_pfn += 1
        return Frame(pfn, node, content, key)

    def _swap_in(self, region: ExactRegion, index: int, entry: SwapEntry) -> None:
        frame = entry.frame
        if frame is not None and frame.ksm and frame.stable_node is None:
            # ksm_might_need_to_copy: a KSM page whose stable node is gone must not be mapped
            self._counters.ksm_swpin_copy += 1
            frame = self._new_frame(node_of(region), entry.content, entry.key)
        elif frame is None:
            frame = self._new_frame(node_of(region), entry.content, entry.key)
            if entry.count > 1:
                # other page table entries refer to it, so it goes through the swap cache
                entry.frame = frame
                frame.swap = entry
        self.map_frame(region, index, frame)
        _put_swap(entry)


def node_of(region: ExactRegion) -> int:
    """Return the node on which a region's memory is allocated; processes run on node 0."""
    return 0 if region.node is None else region.node


def is_alone(frame: Frame) -> bool:
    """Return whether a write may use the frame as it is: anonymous, with no other user."""
    return not frame.ksm and len(frame.ptes) == 1 and (frame.swap is None or not frame.swap.count)


def _free_if_unused(frame: Frame) -> None:
    if not frame.ptes and (frame.swap is None or not frame.swap.count) and not frame.poisoned:
        # freeing clears the mapping field: by that a stable node later knows that its frame is gone
        frame.ksm = False
        frame.stable_node = None


def _put_swap(entry: SwapEntry) -> None:
    entry.count -= 1
    if not entry.count and entry.frame is not None:
        _free_if_unused(entry.frame)


def _may_leave(frame: Frame) -> bool:
    """Return whether a page can be moved, or written to swap."""
    return not frame.pinned and not frame.poisoned and len(rmap_walk(frame)) == len(frame.ptes)


def is_lost(pte: Pte) -> bool:
    """Return whether an access to the page fails, because its memory has failed."""
    if isinstance(pte, SwapEntry):
        return pte.frame is not None and pte.frame.poisoned
    return isinstance(pte, HwPoisonPte)


def rmap_walk(frame: Frame) -> list[tuple[ExactRegion, int]]:
    """Return the mappings of a frame that reverse mapping finds.

    These are all mappings of an anonymous page. Of a KSM page they are those of its stable node's items, and
    of forks of these.
    """
    if not frame.ksm:
        return list(frame.ptes)
    if frame.stable_node is None:
        return []
    items = {(item.region.mm.number, item.address) for item in frame.stable_node.items}
    return [(region, index) for region, index in frame.ptes if _is_of_items(region, index, items)]


def _is_of_items(region: ExactRegion, index: int, items: set[tuple[int, int]]) -> bool:
    """Return whether a page, or one that a fork made it of, is among items, given by mm and address."""
    address = region.start + index
    mms = (region.mm.number, *region.mm.anon_vmas.lineage(address))
    return any((mm, address) in items for mm in mms)
