"""ksmd: the list of processes, the cursor, and the visit to a page.

Source of the rules: `scan_get_next_rmap_item`, `cmp_and_merge_page`, `should_skip_rmap_item`, `__ksm_enter`,
`__ksm_exit` and `unmerge_and_remove_all_rmap_items` in `mm/ksm.c`.
"""

from __future__ import annotations

from cluster.exact.huge_paging import HugePaging
from cluster.exact.objects import ExactMm, ExactRegion, Frame, MmSlot, RmapItem, StableNode
from cluster.exact.reason import Reason
from cluster.exact.stable_tree import StableTrees
from cluster.exact.unstable_tree import UnstableTrees
from cluster.spec.knobs import Counters, KnobValues
from cluster.spec.profile import Profile

_MAX_AGE = 255


class ExactKsmd:
    """The scanner. A call of `scan` is one wake-up of the kernel thread."""

    def __init__(
        self, profile: Profile, knobs: KnobValues, counters: Counters, paging: HugePaging, nodes: int
    ) -> None:
        self._profile = profile
        self._knobs = knobs
        self._counters = counters
        self._paging = paging
        self._reasons: set[Reason] = set()
        self.stable = StableTrees(profile, knobs, counters, nodes, self._reasons)
        self._unstable = UnstableTrees(nodes, self._reasons)
        self._slots: list[MmSlot] = []
        #: finished passes since the start or the last `unmerge_all`
        self.full_scans = 0
        #: the process being scanned; None between passes
        self._cursor: MmSlot | None = None
        #: the next page to look at; 0 at the start of a process
        self._address = 0
        #: the last rmap_item scanned, or the slot before the first; its `next` is the next item of the list
        self._last_item: MmSlot | RmapItem | None = None

    # Processes come and go

    def enter(self, mm: ExactMm) -> None:
        """Register a process directly before the cursor: at the end of the list between passes."""
        slot = MmSlot(mm)
        at = len(self._slots) if self._cursor is None else self._slots.index(self._cursor)
        self._slots.insert(at, slot)
        mm.slot = slot

    def exit(self, mm: ExactMm) -> None:
        """End a registered process: remove its slot or, if it has items, move it behind the cursor."""
        slot = mm.slot
        assert slot is not None
        if slot is self._cursor:
            return
        self._slots.remove(slot)
        if slot.next is None:
            mm.slot = None
            return
        at = 0 if self._cursor is None else self._slots.index(self._cursor) + 1
        self._slots.insert(at, slot)

    def unmerge_all(self) -> None:
        """Undo every merge and free all rmap_items, as run=2 does."""
        for slot in list(self._slots):
            if slot.mm.alive:
                self.unmerge(slot.mm)
            self._free_items_after(slot)
            if not slot.mm.alive:
                self._forget(slot)
        self._cursor = None
        self.stable.remove_all()
        self.full_scans = 0

    def unmerge(self, mm: ExactMm) -> None:
        """Give the merged pages of a process frames of their own; items stay."""
        for region in mm.regions:
            for index, mergeable in enumerate(region.mergeable):
                if mergeable:
                    self._paging.break_ksm(region, index)

    def _forget(self, slot: MmSlot) -> None:
        self._slots.remove(slot)
        slot.mm.slot = None

    def take_reasons(self) -> set[Reason]:
        """Return why the result depends on the shapes of trees, for the work since the last call."""
        taken = set(self._reasons)
        self._reasons.clear()
        return taken

    # The scan

    def scan(self, pages: int) -> None:
        """Visit up to `pages` pages, but stop at the end of a pass (ksm_do_scan)."""
        for _ in range(pages):
            item = self._next_item()
            if item is None:
                return
            frame = item.region.pte[item.index]
            assert isinstance(frame, Frame)
            self._visit(frame, item)
            self._counters.pages_scanned += 1

    def _next_item(self) -> RmapItem | None:
        """Return the rmap_item of the next page to visit; None at the end of the pass."""
        if not self._slots:
            return None
        if self._cursor is None:
            self._start_pass()
        while self._cursor is not None:
            item = self._next_item_of(self._cursor)
            if item is not None:
                return item
            self._finish_process(self._cursor)
        self.full_scans += 1
        return None

    def _start_pass(self) -> None:
        if not self._knobs.merge_across_nodes:
            self.stable.drop_stale_migrated()
        self._unstable.reset()
        self._move_cursor(self._slots[0])

    def _move_cursor(self, slot: MmSlot | None) -> None:
        self._cursor = slot
        self._address = 0
        self._last_item = slot

    def _finish_process(self, slot: MmSlot) -> None:
        """Free the items behind the last page of a process, and move the cursor to the next process."""
        assert self._last_item is not None
        self._free_items_after(self._last_item)
        behind = self._slots.index(slot) + 1
        following = self._slots[behind] if behind < len(self._slots) else None
        if self._address == 0:
            self._forget(slot)
            slot.mm.merge_any &= not self._profile.idle_loses_merge_any
        self._move_cursor(following)

    def _next_item_of(self, slot: MmSlot) -> RmapItem | None:
        if not slot.mm.alive:
            self._move_cursor(slot)
            return None
        for region in slot.mm.regions:
            item = self._next_item_in(region)
            if item is not None:
                return item
        return None

    def _next_item_in(self, region: ExactRegion) -> RmapItem | None:
        for index in range(max(self._address - region.start, 0), len(region)):
            if not region.mergeable[index]:
                continue
            self._address = region.start + index + 1
            frame = region.pte[index]
            if isinstance(frame, Frame):
                item = self._get_item(region, index)
                self._last_item = item
                if not self._age_and_skip(frame, item):
                    return item
        return None

    def _get_item(self, region: ExactRegion, index: int) -> RmapItem:
        """Return the rmap_item of a page, new or old, and free the items before it (get_next_rmap_item)."""
        last = self._last_item
        assert last is not None
        address = region.start + index
        while (item := last.next) is not None and item.address <= address:
            if item.address == address:
                return item
            last.next = item.next
            self._free_item(item)
        item = RmapItem(region, index)
        item.next = last.next
        last.next = item
        region.mm.rmap_items += 1
        self._counters.rmap_items += 1
        return item

    def _age_and_skip(self, frame: Frame, item: RmapItem) -> bool:
        """Let the item age; return whether smart_scan skips its page (should_skip_rmap_item)."""
        if not self._knobs.smart_scan or frame.ksm:
            return False
        if self._profile.leaving_forgets and item.head is not None:
            return False
        age = item.age
        item.age = min(age + 1, _MAX_AGE)
        if age < 3:
            return False
        if item.remaining_skips == 0:
            item.remaining_skips = _skip_age(age)
            return False
        self._counters.pages_skipped += 1
        item.remaining_skips -= 1
        self._remove_from_tree(item)
        return True

    # rmap_items

    def _free_items_after(self, last: MmSlot | RmapItem) -> None:
        while (item := last.next) is not None:
            last.next = item.next
            self._free_item(item)

    def _free_item(self, item: RmapItem) -> None:
        self._remove_from_tree(item)
        item.region.mm.rmap_items -= 1
        self._counters.rmap_items -= 1

    def _remove_from_tree(self, item: RmapItem) -> None:
        """Remove an item from the tree that it is in, if any (remove_rmap_item_from_tree)."""
        node = item.head
        if node is not None:
            if self.stable.live_frame(node) is not None:
                self._drop_sharer(item, node)
        elif item.seqnr is not None:
            if item.seqnr == self.full_scans:
                self._unstable.erase(item)
            item.seqnr = None
            self._counters.pages_unshared -= 1

    def _drop_sharer(self, item: RmapItem, node: StableNode) -> None:
        del node.items[item]
        item.leave_stable_node(forget=self._profile.leaving_forgets)
        item.region.mm.merging_pages -= 1
        if node.items:
            self._counters.pages_sharing -= 1
        else:
            self._counters.pages_shared -= 1

    def _add_sharer(self, item: RmapItem, node: StableNode) -> None:
        """Add an item to a stable node (stable_tree_append)."""
        if node.items:
            self._counters.pages_sharing += 1
        else:
            self._counters.pages_shared += 1
        node.items[item] = None
        item.head = node
        item.region.mm.merging_pages += 1

    # A visit

    def _visit(self, frame: Frame, item: RmapItem) -> None:
        """Try to merge one page (cmp_and_merge_page)."""
        node = frame.stable_node
        if node is not None:
            self.stable.unlink_migrated(node)
        elif self._profile.checksum_first:
            self._remove_from_tree(item)
            if self._volatile_or_zero(frame, item):
                return
        kframe = self.stable.search(frame)
        if kframe is not None and kframe is frame and item.head is node:
            return
        self._remove_from_tree(item)
        if kframe is not None:
            self._merge_with_ksm_page(item, frame, kframe)
            return
        if not self._profile.checksum_first and self._volatile_or_zero(frame, item):
            return
        self._search_unstable(frame, item)

    def _volatile_or_zero(self, frame: Frame, item: RmapItem) -> bool:
        """Return whether the visit ends here: the content has changed, or the zero page has replaced it."""
        if item.oldchecksum != frame.content:
            item.oldchecksum = frame.content
            return True
        if self._knobs.use_zero_pages and frame.content == 0 and self._is_replaceable(item, frame):
            self._paging.map_zero_page(item.region, item.index)
            return True
        return False

    def _search_unstable(self, frame: Frame, item: RmapItem) -> None:
        across = bool(self._knobs.merge_across_nodes)
        other, inserted = self._unstable.search_insert(item, frame, self.stable.nid_of(frame), across)
        if inserted:
            item.seqnr = self.full_scans
            self._counters.pages_unshared += 1
        if other is not None:
            self._merge_two(item, frame, other)

    def _merge_two(self, item: RmapItem, frame: Frame, other: RmapItem) -> None:
        """Make the frame of the scanned page the KSM page of both (try_to_merge_two_pages)."""
        other_frame = other.region.pte[other.index]
        assert isinstance(other_frame, Frame)
        if frame.huge is not None and frame.huge is other_frame.huge:
            # The reference to the other page makes the split fail. ksmd drops it and splits without a merge.
            self._paging.split(frame.huge, pinned=True)
            self._paging.split(frame.huge)
            return
        if not self._is_replaceable(item, frame):
            return
        frame.ksm = True
        if not self._is_replaceable(other, other_frame):
            # The scanned page is copied again: that undoes the merge.
            self._paging.break_ksm(item.region, item.index)
            item.leave_stable_node(forget=self._profile.leaving_forgets)
            return
        self._replace(other, frame)
        self._remove_from_tree(other)
        node = self.stable.insert(frame)
        self._add_sharer(other, node)
        self._add_sharer(item, node)

    def _merge_with_ksm_page(self, item: RmapItem, frame: Frame, kframe: Frame) -> None:
        """Share a KSM page (try_to_merge_with_ksm_page).

        If the scanned page cannot be replaced, nothing happens.
        """
        if kframe is not frame:
            if not self._is_replaceable(item, frame):
                return
            self._replace(item, kframe)
        assert kframe.stable_node is not None
        self._add_sharer(item, kframe.stable_node)

    def _is_replaceable(self, item: RmapItem, frame: Frame) -> bool:
        """Return whether the item's page can be replaced; split the huge page that it belongs to.

        A KSM page cannot be replaced: reverse mapping does not find it by its anon_vma. Nor can a pinned
        page, which has more references than mappings, a page whose huge page does not split, or one that the
        split mapped to the shared zero page.
        """
        if frame.huge is not None and not self._paging.split(frame.huge):
            return False
        return not frame.ksm and not frame.pinned and item.region.pte[item.index] is frame

    def _replace(self, item: RmapItem, kframe: Frame) -> None:
        """Point an item's page at the KSM page (replace_page)."""
        self._paging.unmap(item.region, item.index)
        self._paging.map_frame(item.region, item.index, kframe)


def _skip_age(age: int) -> int:
    """Return how many passes skip a page of this age between two visits (skip_age)."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    if age <= 8:
        return 4
    return 8
