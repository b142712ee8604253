"""Page tables: faults, copy-on-write, fork, unmapping, swap and migration.

Sources of the rules: `mm/memory.c` (faults, copy-on-write, fork), `mm/madvise.c` (page-out), `mm/migrate.c`
(move_pages), and `break_ksm`, `rmap_walk_ksm` and `folio_migrate_ksm` in `mm/ksm.c`.
"""

from __future__ import annotations

from cluster.exact.objects import ExactRegion, Frame, Pte, SwapEntry, ZeroPte
from cluster.spec.knobs import Counters


class Paging:
    """Hands out frames and changes page table entries; knows nothing of ksmd's trees."""

    def __init__(self, counters: Counters, *, swap: bool, track_zero_pages: bool) -> None:
        self._counters = counters
        self._swap = swap
        self._track_zero_pages = track_zero_pages
        self._next_pfn = 1

    def write(self, region: ExactRegion, index: int, content: int, key: int) -> None:
        """A write fault, where one is needed, and the write of a whole page."""
        pte = region.pte[index]
        if isinstance(pte, Frame) and _writable_alone(pte):
            pte.content, pte.key = content, key
            return
        self._count_broken(pte)
        self.unmap(region, index)
        self._map_new(region, index, content, key)

    def read(self, region: ExactRegion, index: int) -> None:
        """A read fault, where one is needed."""
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
        elif pte is ZeroPte.KSM and self._track_zero_pages:
            self.write(region, index, 0, -1)

    def map_frame(self, region: ExactRegion, index: int, frame: Frame) -> None:
        """Point an empty page table entry at a frame."""
        region.pte[index] = frame
        frame.ptes.add((region, index))

    def map_zero_page(self, region: ExactRegion, index: int) -> None:
        """Put the shared zero page in the place of a page, on ksmd's behalf."""
        self.unmap(region, index)
        region.pte[index] = ZeroPte.KSM
        region.mm.zero_pages += 1
        self._counters.ksm_zero_pages += 1

    def unmap(self, region: ExactRegion, index: int) -> None:
        """Clear a page table entry; what nobody maps any more is freed."""
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

    def share(self, parent: ExactRegion, child: ExactRegion) -> None:
        """Copy page table entries at fork, where there is an anon_vma: frames are shared from now on."""
        for index, pte in enumerate(parent.pte):
            if pte is None or not parent.mm.anon_vmas.needs_copy(parent.start + index):
                continue
            if isinstance(pte, Frame):
                self.map_frame(child, index, pte)
                continue
            child.pte[index] = pte
            if isinstance(pte, SwapEntry):
                pte.count += 1
            elif pte is ZeroPte.KSM:
                child.mm.zero_pages += 1
                self._counters.ksm_zero_pages += 1

    def page_out(self, region: ExactRegion, index: int) -> None:
        """Write a page to swap, if this is its only mapping."""
        frame = region.pte[index]
        if not self._swap or not isinstance(frame, Frame) or len(frame.ptes) > 1 or not _rmap_complete(frame):
            return
        entry = (
            frame.swap if frame.swap is not None and frame.swap.count else SwapEntry(frame.content, frame.key)
        )
        entry.frame = None
        frame.swap = None
        entry.count += 1
        self.unmap(region, index)
        region.pte[index] = entry

    def migrate(self, frame: Frame, node: int) -> bool:
        """Move a frame to another node, with all its mappings; False if it cannot be moved."""
        if not _rmap_complete(frame):
            return False
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
        return True

    def _count_broken(self, pte: Pte) -> None:
        """Count a copy-on-write break, if the page is a KSM page."""
        frame = pte.frame if isinstance(pte, SwapEntry) else pte
        if isinstance(frame, Frame) and frame.ksm:
            self._counters.cow_ksm += 1

    def _map_new(self, region: ExactRegion, index: int, content: int, key: int) -> None:
        region.mm.anon_vmas.prepare(region.start + index)
        self.map_frame(region, index, self._new_frame(_node_of(region), content, key))

    def _new_frame(self, node: int, content: int, key: int) -> Frame:
        pfn = self._next_pfn
        self._next_pfn += 1
        return Frame(pfn, node, content, key)

    def _swap_in(self, region: ExactRegion, index: int, entry: SwapEntry) -> None:
        frame = entry.frame
        if frame is not None and frame.ksm and frame.stable_node is None:
            # ksm_might_need_to_copy: a KSM page without its stable node may not be mapped
            self._counters.ksm_swpin_copy += 1
            frame = self._new_frame(_node_of(region), entry.content, entry.key)
        elif frame is None:
            frame = self._new_frame(_node_of(region), entry.content, entry.key)
            if entry.count > 1:
                # others will want it: it goes through the swap cache
                entry.frame = frame
                frame.swap = entry
        self.map_frame(region, index, frame)
        _put_swap(entry)


def _node_of(region: ExactRegion) -> int:
    """Where memory for a region is allocated; processes run on node 0."""
    return 0 if region.node is None else region.node


def _writable_alone(frame: Frame) -> bool:
    """Whether a write may use the frame as it is: anonymous, with no other user."""
    return not frame.ksm and len(frame.ptes) == 1 and (frame.swap is None or not frame.swap.count)


def _free_if_unused(frame: Frame) -> None:
    if not frame.ptes and (frame.swap is None or not frame.swap.count):
        # a freed page forgets its mapping word: that is how a stable node turns stale
        frame.ksm = False
        frame.stable_node = None


def _put_swap(entry: SwapEntry) -> None:
    entry.count -= 1
    if not entry.count and entry.frame is not None:
        _free_if_unused(entry.frame)


def _rmap_complete(frame: Frame) -> bool:
    """Whether reverse mapping finds every mapping of a frame.

    Those of an anonymous page always; of a KSM page those of its stable node's items and of forks of them.
    """
    if not frame.ksm:
        return True
    if frame.stable_node is None:
        return False
    hanging = {(item.region.mm.number, item.address) for item in frame.stable_node.items}
    for region, index in frame.ptes:
        address = region.start + index
        mms = (region.mm.number, *region.mm.anon_vmas.lineage(address))
        if not any((mm, address) in hanging for mm in mms):
            return False
    return True
