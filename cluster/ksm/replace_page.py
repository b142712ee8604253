"""What the trees' decisions do to page tables and frames (try_to_merge_one_page(), replace_page())."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import find_unsorted, rows_with
from cluster.arrays.words import (
    I64,
    U8,
    Digests,
    FrameWords,
    ItemKeys,
    Pfns,
    Slots,
    node_of_frame,
    node_of_key,
    on_node,
    pfn_of,
)
from cluster.ksm.scan import Scanner
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import SHARED
from cluster.wire.messages import Kind

#: Pages compared at once; few enough that they stay in a core's cache.
PAGES_AT_ONCE = 64


class Merger:
    """Carries out what the trees decide about pages of this node; `cluster.ksm.page_updates` sends it."""

    def __init__(self, node: NodeState, faults: Faults, scanner: Scanner) -> None:
        self._n = node
        self._faults = faults
        self._scanner = scanner

    def _slots(self, keys: ItemKeys) -> Slots:
        return self._n.spaces.index.slots(keys)

    def on_wait(self, keys: ItemKeys, digests: Digests) -> None:
        """Mark pages that have been inserted into the unstable tree (WAIT)."""
        slots = self._slots(keys)
        table = self._n.table
        table.rekey(slots, digests)
        if not self._n.homes_follow:
            table.set_homes(slots, self._n.home_of_frames(digests, table.pte[slots]))
        table.set_unstable(slots)

    def on_rekey(self, keys: ItemKeys, digests: Digests) -> None:
        self._n.table.rekey(self._slots(keys), digests)

    def on_added_to_stable(self, keys: ItemKeys, checksum_skipped: U8) -> None:
        """Assign the items of these pages to the stable nodes of the mapped frames (ADDED_TO_STABLE)."""
        slots = self._slots(keys)
        self._n.table.set_stable(slots)
        unchecked = slots[checksum_skipped == 1]
        self._scanner.undo_checksums(unchecked)
        # Pages that another visit of this window made KSM pages are neither checksummed nor searched for.
        self._n.counters["checksums"] -= len(slots)
        self._n.counters["changed"] -= len(unchecked)

    def on_removed_from_trees(self, keys: ItemKeys, checksum_compared: U8) -> None:
        """Remove the items of these pages from the trees until the next visit (REMOVED_FROM_TREES)."""
        table = self._n.table
        slots = self._slots(keys)
        table.remove_from_trees(slots)
        table.confirm_checksums(slots[checksum_compared == 1])
        if not self._n.profile.checksum_first:
            self._scanner.undo_checksums(slots)

    def on_map_zero(self, keys: ItemKeys) -> None:
        self._scanner.map_zero(self._slots(keys))

    def on_break(self, keys: ItemKeys, frames: FrameWords, digests: Digests) -> None:
        """Make KSM frames without a stable node of pages' frames, and break the pages out at once (BREAK).

        The pages met KSM pages or pinned ones in the unstable tree (the error path of
        try_to_merge_two_pages()).
        """
        n, table = self._n, self._n.table
        slots = self._slots(keys)
        # No other page maps the frames of the rest, which are free as soon as these pages leave them.
        n.orphans.add(frames[rows_with(table.state[slots], SHARED)])
        self._make_shared_ksm(table.pte[slots], frames, digests, orphan=True)
        table.remove_from_trees(slots)
        if n.profile.leaving_forgets:
            table.forget(slots)
        table.make_ksm(slots, frames, digests, orphan=True)
        self._faults.break_ksm(slots)

    def on_stable(self, keys: ItemKeys, frames: FrameWords) -> None:
        """Map the frames of these pages as KSM frames; add the items to their stable nodes (STABLE)."""
        n, table = self._n, self._n.table
        slots = self._slots(keys)
        shared = rows_with(table.state[slots], SHARED)
        merged = slots[shared]
        also, of = self._make_shared_ksm(
            table.pte[merged], frames[shared], table.tree_key[merged], orphan=False
        )
        if n.knobs.smart_scan and len(also):
            self._undo_skips(also, merged[of])
        table.merge(slots, frames)

    def _undo_skips(self, slots: Slots, new_stable_pages: Slots) -> None:
        """Undo smart_scan's visits to pages that the scan reaches after their frames became KSM frames.

        smart_scan skips no KSM pages. `new_stable_pages` are the pages that made the frames KSM frames.
        """
        n, table = self._n, self._n.table
        pos = n.position(n.keys_of(slots))
        late = (pos > n.position(n.keys_of(new_stable_pages))) & (pos < n.window.high)
        index = n.spaces.index
        slots = slots[late & index.mergeable[index.vma_of(slots)]]
        skipped = slots[table.ages.undo_visit(slots)]
        n.counters["pages_skipped"] -= len(skipped)
        n.counters["pages_scanned"] += len(skipped)
        table.add_items(skipped)
        table.set_stable(skipped)
        self._recount(table.tree_key[skipped], table.pte[skipped], 1)

    def _make_shared_ksm(
        self, old: FrameWords, new: FrameWords, digests: Digests, *, orphan: bool
    ) -> tuple[Slots, I64]:
        """Make frames that several entries map since a fork KSM frames, without adding items.

        Return the slots of all entries that map them, and which of the frames each maps. int64[m], int64[m].
        """
        if len(old) == 0:
            return old, old
        n, table = self._n, self._n.table
        n.swap.rename_frames(old, new)
        slots = rows_with(table.state[: table.size], SHARED)
        at = find_unsorted(old, table.pte[slots])
        slots, at = slots[at >= 0], at[at >= 0]
        self._faults.leave_unstable_tree(slots)
        table.make_ksm(slots, new[at], digests[at], orphan=orphan)
        return slots, at

    def on_merge(self, keys: ItemKeys, frames: FrameWords) -> None:
        """Map KSM frames of the same digest in these pages; compare bytes first, if there are any (MERGE)."""
        n = self._n
        if not n.contents.with_bytes:
            self._replace(keys, frames)
            return
        slots = self._slots(keys)
        old, digests = n.table.pte[slots], n.table.tree_key[slots]
        n.out.send(Kind.COMPARE_SOURCE, node_of_frame(old), keys, old, frames, digests)

    def _replace(self, keys: ItemKeys, frames: FrameWords) -> None:
        n, table = self._n, self._n.table
        slots = self._slots(keys)
        old = table.pte[slots]
        n.counters["pages_merged"] += len(slots)
        n.counters["pages_merged_remote"] += int(
            np.count_nonzero(node_of_frame(old) != node_of_frame(frames))
        )
        self._faults.put(old)
        table.merge(slots, frames)
        if not n.profile.checksum_first:
            self._scanner.undo_checksums(slots)

    # Comparing bytes.

    def on_compare_source(
        self, keys: ItemKeys, old: FrameWords, frames: FrameWords, digests: Digests
    ) -> None:
        n = self._n
        data = n.frames.data
        assert data is not None
        here = on_node(frames, n.id)
        rows = np.flatnonzero(here)
        equal = _equal(data, pfn_of(frames[rows]), data, pfn_of(old[rows]))
        n.out.send(Kind.VERDICT, node_of_key(keys[rows]), keys[rows], frames[rows], digests[rows], equal)
        rows = np.flatnonzero(~here)
        pages = data[pfn_of(old[rows])]
        to = node_of_frame(frames[rows])
        n.out.send(Kind.COMPARE_TARGET, to, keys[rows], frames[rows], digests[rows], pages)

    def on_compare_target(self, keys: ItemKeys, frames: FrameWords, digests: Digests, pages: U8) -> None:
        data = self._n.frames.data
        assert data is not None
        equal = _equal(data, pfn_of(frames), pages, np.arange(len(pages)))
        self._n.out.send(Kind.VERDICT, node_of_key(keys), keys, frames, digests, equal)

    def on_verdict(self, keys: ItemKeys, frames: FrameWords, digests: Digests, equal: U8) -> None:
        """Merge pages with equal bytes; leave the others as they are, in no tree (VERDICT)."""
        same = equal == 1
        self._replace(keys[same], frames[same])
        keys, frames, digests = keys[~same], frames[~same], digests[~same]
        self._n.table.remove_from_trees(self._slots(keys))
        self._faults.put(frames)
        self._recount(digests, frames, -1)

    def _recount(self, digests: Digests, frames: FrameWords, change: int) -> None:
        n = self._n
        changes = np.full(len(frames), change)
        n.out.send(Kind.RECOUNT, n.home_of_frames(digests, frames), digests, frames, changes)

    # Frames of this node.

    def on_make_ksm(self, frames: FrameWords) -> None:
        self._n.frames.make_ksm(frames)
        self._n.failed.follow(frames)

    def on_dropped(self, frames: FrameWords) -> None:
        """Remove broken-out items from stable nodes that are gone (DROPPED)."""
        self._n.table.drop_stable_nodes(frames)


def _equal(some: U8, rows: Pfns, others: U8, other_rows: Pfns) -> U8:
    """Return 1 where pages, rows of uint8[n, PAGE_SIZE], are the same. uint8[rows]."""
    some, others = some.view(np.uint64), others.view(np.uint64)
    equal = np.empty(len(rows), np.uint8)
    for low in range(0, len(rows), PAGES_AT_ONCE):
        part = slice(low, low + PAGES_AT_ONCE)
        equal[part] = (some[rows[part]] == others[other_rows[part]]).all(axis=1)
    return equal
