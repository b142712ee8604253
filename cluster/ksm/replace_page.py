"""What merging does to page tables and frames (try_to_merge_one_page(), replace_page())."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, U8, U64, node_of_frame, node_of_key, on_node, pfn_of
from cluster.ksm.scan import Scanner
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState, renamed
from cluster.mm.page_table import (
    ACTIVE,
    ASIDE,
    BROKEN,
    CHECKED,
    ITEM,
    KSM,
    ORPHAN,
    PRESENT,
    SHARED,
    STABLE,
    UNSTABLE,
    WAITING,
)
from cluster.wire.messages import Kind

#: Pages compared at once: so few that they stay in a core's cache.
PAGES_AT_ONCE = 64


class Merger:
    def __init__(self, node: NodeState, faults: Faults, scanner: Scanner) -> None:
        self._n = node
        self._faults = faults
        self._scanner = scanner

    def _slots(self, keys: I64) -> I64:
        """Slots of pages that are about to change."""
        self._n.version += 1
        return self._n.spaces.index.slots(keys)

    def on_wait(self, keys: I64, digests: U64) -> None:
        """These pages wait in the unstable tree."""
        slots = self._slots(keys)
        table = self._n.table
        table.rekey(slots, digests)
        self._scanner.await_change(slots, self._n.home_of_frames(digests, table.pte[slots]))

    def on_rekey(self, keys: I64, digests: U64) -> None:
        self._n.table.rekey(self._slots(keys), digests)

    def on_added_to_stable(self, keys: I64, unseen: U8) -> None:
        """These pages' items hang on the stable node of their own frame."""
        table = self._n.table
        slots = self._slots(keys)
        table.state[slots] = (table.state[slots] | STABLE) & ~np.uint16(UNSTABLE | WAITING | ACTIVE)
        self._scanner.unsee(slots[unseen == 1])

    def on_removed_from_trees(self, keys: I64, seen: U8) -> None:
        """The items of these pages are in no tree until the next visit."""
        table = self._n.table
        slots = self._slots(keys)
        table.state[slots] = (table.state[slots] & ~np.uint16(STABLE | UNSTABLE | WAITING)) | ACTIVE
        slots = slots[seen == 1]
        table.state[slots] = (table.state[slots] | CHECKED) & ~np.uint16(ASIDE)

    def on_map_zero(self, keys: I64) -> None:
        self._scanner.map_zero(self._slots(keys))

    def on_break(self, keys: I64, frames: I64, digests: U64) -> None:
        """These pages met KSM pages in the unstable tree: their frames become KSM frames without a stable
        node, and are left at once (the error path of try_to_merge_two_pages())."""
        n, table = self._n, self._n.table
        n.orphans.update(frames.tolist())
        slots = self._slots(keys)
        self._spread(table.pte[slots], frames, digests, KSM | ORPHAN)
        table.pte[slots] = frames
        table.rekey(slots, digests)
        table.state[slots] = (table.state[slots] | KSM | ORPHAN) & ~np.uint16(SHARED | UNSTABLE | WAITING)
        self._faults.break_ksm(slots)

    def on_stable(self, keys: I64, frames: I64) -> None:
        """The frames of these pages have become KSM frames."""
        n, table = self._n, self._n.table
        slots = self._slots(keys)
        shared = rows_with(table.state[slots], SHARED)
        behind = slots[shared]
        also, of = self._spread(table.pte[behind], frames[shared], table.tree_key[behind], KSM)
        if n.knobs.smart_scan and len(also):
            self._unskip(also, behind[of])
        self._hang(slots, frames)

    def _unskip(self, slots: I64, new_stable_pages: I64) -> None:
        """Pages behind those that made their frames KSM frames: smart_scan leaves KSM pages alone, so what it
        has done to them in this window is undone."""
        n, table = self._n, self._n.table
        pos = n.position(n.keys_of(slots))
        late = (pos > n.position(n.keys_of(new_stable_pages))) & (pos < n.window.high)
        index = n.spaces.index
        slots = slots[late & index.mergeable[index.vma_of(slots)]]
        skipped = slots[self._scanner.unskip(slots)]
        n.counters["pages_skipped"] -= len(skipped)
        n.counters["pages_scanned"] += len(skipped)
        table.state[skipped] |= ITEM | STABLE
        self._recount(table.tree_key[skipped], table.pte[skipped], 1)

    def _spread(self, old: I64, new: I64, digests: U64, flags: int) -> tuple[I64, I64]:
        """Other entries that map the same frame since a fork map a KSM frame now, without an item on it.

        Returns them, and which of the frames each maps.
        """
        if len(old) == 0:
            return old, old
        n, table = self._n, self._n.table
        n.swap.cached = renamed(n.swap.cached, old, new)
        slots = rows_with(table.state[: table.size], SHARED)
        order = np.argsort(old)
        at = order[np.minimum(np.searchsorted(old, table.pte[slots], sorter=order), len(old) - 1)]
        same = old[at] == table.pte[slots]
        slots, at = slots[same], at[same]
        self._faults.withdraw(slots)
        table.pte[slots] = new[at]
        table.rekey(slots, digests[at])
        table.state[slots] = (table.state[slots] & ~np.uint16(SHARED)) | np.uint16(flags | ACTIVE)
        return slots, at

    def _hang(self, slots: I64, frames: I64) -> None:
        table = self._n.table
        table.pte[slots] = frames
        table.state[slots] = (table.state[slots] & (CHECKED | ASIDE)) | ITEM | STABLE | KSM | PRESENT

    def on_merge(self, keys: I64, frames: I64) -> None:
        """These pages are to map KSM frames of the same digest; bytes are compared before."""
        n = self._n
        if not n.contents.with_bytes:
            self._replace(keys, frames)
            return
        slots = self._slots(keys)
        old, digests = n.table.pte[slots], n.table.tree_key[slots]
        n.out.send(Kind.COMPARE_SOURCE, node_of_frame(old), keys, old, frames, digests)

    def _replace(self, keys: I64, frames: I64) -> None:
        n, table = self._n, self._n.table
        slots = self._slots(keys)
        old = table.pte[slots]
        n.counters["pages_merged"] += len(slots)
        n.counters["pages_merged_remote"] += int(
            np.count_nonzero(node_of_frame(old) != node_of_frame(frames))
        )
        self._faults.put(old)
        self._hang(slots, frames)
        if not n.profile.checksum_first:
            self._scanner.unsee(slots)

    # Comparing bytes.

    def on_compare_source(self, keys: I64, old: I64, frames: I64, digests: U64) -> None:
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

    def on_compare_target(self, keys: I64, frames: I64, digests: U64, pages: U8) -> None:
        data = self._n.frames.data
        assert data is not None
        equal = _equal(data, pfn_of(frames), pages, np.arange(len(pages)))
        self._n.out.send(Kind.VERDICT, node_of_key(keys), keys, frames, digests, equal)

    def on_verdict(self, keys: I64, frames: I64, digests: U64, equal: U8) -> None:
        """Pages whose digests agree but whose bytes do not stay as they are."""
        same = equal == 1
        self._replace(keys[same], frames[same])
        keys, frames, digests = keys[~same], frames[~same], digests[~same]
        n = self._n
        slots = self._slots(keys)
        n.table.state[slots] = (n.table.state[slots] & ~np.uint16(UNSTABLE | WAITING)) | ACTIVE
        self._faults.put(frames)
        self._recount(digests, frames, -1)

    def _recount(self, digests: U64, frames: I64, change: int) -> None:
        n = self._n
        changes = np.full(len(frames), change)
        n.out.send(Kind.RECOUNT, n.home_of_frames(digests, frames), digests, frames, changes)

    # Frames of this node.

    def on_make_ksm(self, frames: I64) -> None:
        self._n.frames.make_ksm(frames)

    def on_dropped(self, frames: I64) -> None:
        """Stable nodes were removed with all their items."""
        table = self._n.table
        self._n.version += 1
        slots = self._n.broken.take_frames(frames)
        table.state[slots] &= ~np.uint16(STABLE | BROKEN)


def _equal(some: U8, rows: I64, others: U8, other_rows: I64) -> U8:
    """1 where pages, rows of uint8[n, 4096], are the same. uint8[rows]."""
    some, others = some.view(np.uint64), others.view(np.uint64)
    equal = np.empty(len(rows), np.uint8)
    for low in range(0, len(rows), PAGES_AT_ONCE):
        part = slice(low, low + PAGES_AT_ONCE)
        equal[part] = (some[rows[part]] == others[other_rows[part]]).all(axis=1)
    return equal
