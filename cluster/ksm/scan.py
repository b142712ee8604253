"""ksmd's visits to the pages of one node's processes (scan_get_next_rmap_item(), cmp_and_merge_page()).

A visit that finds nothing changed has no effect, so the scan looks only at pages whose visit is due
(VISIT_DUE). It asks the trees by events, which it sends to the nodes that have the contents' entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.columns import find_unsorted, rows_where, rows_with, run_of, taken
from cluster.arrays.words import (
    I64,
    U8,
    U16,
    U32,
    U64,
    VPN_BITS,
    VPN_MASK,
    Bool,
    Digests,
    FrameWords,
    ItemKeys,
    Slots,
    checksum,
    is_huge_word,
    node_of_frame,
    node_of_key,
    node_of_mm,
    on_node,
    pfn_of,
)
from cluster.ksm.visit import VisitKind
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import (
    BROKEN_OUT,
    HAS_CHECKSUM,
    HUGE,
    IN_UNSTABLE_TREE,
    KSM,
    ORPHAN,
    OTHER_CHECKSUM,
    PRESENT,
    SHARED,
    STABLE,
    UNSTABLE,
    VISIT_DUE,
)
from cluster.mm.vma import Vma
from cluster.wire.commands import Locate
from cluster.wire.messages import Kind
from cluster.wire.window import Window

#: The most pages visited at once; few enough that columns of them stay in a core's cache.
PORTION = 1 << 15


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots [start, stop), all of mergeable VMAs or none."""

    start: int
    stop: int
    mergeable: bool


class Scanner:
    """ksmd's visits to this node's pages, and the answers of other nodes that they wait for."""

    def __init__(self, node: NodeState, faults: Faults) -> None:
        self._n = node
        self._faults = faults
        #: Pages of this window that the stable tree is searched for although they have changed: slots, and
        #: their checksums and states before.
        self._changed: list[tuple[Slots, U32, U16]] = []
        #: Private pages of this window whose items have left stable nodes, and the frames of these; only
        #: where `NodeState.leaving_ends_age`.
        self._left: list[tuple[Slots, FrameWords]] = []

    def scan(self, window: Window) -> None:
        """Visit every page of the window; the trees decide what becomes of candidates."""
        n = self._n
        self._changed, self._left = [], []
        state = n.table.state
        due = []
        for run in self.ranges(window):
            part = state[run.start : run.stop]
            skipped = None
            if run.mergeable:
                skips = 0
                if n.knobs.smart_scan:
                    skipped = self._skip(run)
                    skips = int(np.count_nonzero(skipped))
                    n.counters["pages_skipped"] += skips
                present = int(np.count_nonzero(part & PRESENT))
                n.counters["pages_scanned"] += present - skips
                n.counters["checksums"] += present - skips - int(np.count_nonzero(part & KSM))
                if n.huge_pages.used:
                    huge = (part & HUGE) != 0
                    n.counters["huge_checksums"] += int(
                        np.count_nonzero(huge if skipped is None else huge & ~skipped)
                    )
            # In a steady pass, to look at all pages together is quicker than at each of them.
            if not np.bitwise_or.reduce(part) & VISIT_DUE:
                continue
            hit = (part & VISIT_DUE) != 0
            if skipped is not None:
                hit &= ~skipped
            due.append(np.flatnonzero(hit) + run.start)
        slots = np.concatenate(due) if due else np.empty(0, np.int64)
        for low in range(0, len(slots), PORTION):
            self._visit(slots[low : low + PORTION])

    def ranges(self, window: Window) -> list[SlotRange]:
        """Return the slots of the window's part of every process in ksmd's list; neighbours are joined."""
        n, index = self._n, self._n.spaces.index
        rank = n.ranks_of(index.mm)
        base = rank << VPN_BITS
        low = np.maximum(index.start, window.low - base)
        high = np.minimum(index.end, window.high - base)
        rows = np.flatnonzero((rank >= 0) & (low < high))
        if len(rows) == 0:
            return []
        slot0 = (index.slot0 - index.start)[rows]
        start, stop, mergeable = slot0 + low[rows], slot0 + high[rows], index.mergeable[rows]
        joined = (start[1:] == stop[:-1]) & (mergeable[1:] == mergeable[:-1])
        first, last = np.flatnonzero(np.append(True, ~joined)), np.flatnonzero(np.append(~joined, True))
        columns = start[first].tolist(), stop[last].tolist(), mergeable[first].tolist()
        return list(map(SlotRange, *columns))

    def count(self, low: int) -> dict[int, int]:
        """Return how many pages a scan from position `low` to the end of the pass would visit, by mm."""
        counts: dict[int, int] = {}
        for vma in self._n.spaces.index.vmas:
            counts[vma.mm] = counts.get(vma.mm, 0) + len(self._to_visit(vma, low))
        return counts

    def locate(self, command: Locate) -> dict[int, int]:
        """Return the virtual page at which each count of pages to visit ends, by index in the command."""
        n = self._n
        found: dict[int, int] = {}
        mms = np.unique(command.mms)
        for mm in mms[node_of_mm(mms) == n.id].tolist():
            rows = np.flatnonzero(command.mms == mm)
            slots = np.concatenate([self._to_visit(vma, command.low) for vma in n.spaces.mms[mm].vmas])
            last = n.keys_of(slots[command.nr_pages[rows] - 1])
            found.update(zip(rows.tolist(), ((last & VPN_MASK) + 1).tolist(), strict=True))
        return found

    def _to_visit(self, vma: Vma, low: int) -> Slots:
        """Return the slots of the VMA's pages from position `low` on that ksmd would visit."""
        start, stop = self._clip(vma, Window(0, low))
        if not vma.mergeable or start >= stop:
            return np.empty(0, np.int64)
        table = self._n.table
        part = slice(vma.slot0 + start - vma.start, vma.slot0 + stop - vma.start)
        visit = (table.state[part] & PRESENT) != 0
        if self._n.knobs.smart_scan:
            visit &= ~(table.ages.would_skip(part) & ((table.state[part] & self._not_aging) == 0))
        return np.flatnonzero(visit) + part.start

    def _clip(self, vma: Vma, window: Window) -> tuple[int, int]:
        """Return the virtual pages [start, end) of the VMA that the window covers."""
        rank = self._n.rank_of(vma.mm)
        if rank < 0:
            return 0, 0
        base = rank << VPN_BITS
        return max(vma.start, window.low - base), min(vma.end, window.high - base)

    # smart_scan (should_skip_rmap_item()).

    @property
    def _not_aging(self) -> int:
        """Bits of pages that smart_scan neither skips nor lets age."""
        return KSM | STABLE if self._n.profile.leaving_forgets else KSM

    def on_dropped_at(self, frames: FrameWords, positions: I64) -> None:
        """Let pages of this window age whose stable nodes were removed before their visits (DROPPED_AT)."""
        for slots, left in self._left:
            at = find_unsorted(frames, left)
            slots, at = slots[at >= 0], at[at >= 0]
            late = self._n.position(self._n.keys_of(slots)) > positions[at]
            self._n.table.ages.first_visit(slots[late])

    def _skip(self, run: SlotRange) -> Bool:
        """Let all pages of the run age, and return which of them this visit skips."""
        table, part = self._n.table, slice(run.start, run.stop)
        state = table.state[part]
        skipped = table.ages.visit(part, (state & (PRESENT | self._not_aging)) == PRESENT)
        leaving = skipped & ((state & (UNSTABLE | STABLE)) != 0)
        if leaving.any():
            self._leave_trees(np.flatnonzero(leaving) + run.start)
        return skipped

    def _leave_trees(self, slots: Slots) -> None:
        """Remove items from the trees; the next visit looks their pages up again."""
        keys, state = self._n.keys_of(slots), self._n.table.state[slots]
        self._remove_from_trees(slots, keys, state, np.ones(len(slots), np.bool_))

    # Visits.

    def _visit(self, slots: Slots) -> None:
        state = taken(self._n.table.state, run_of(slots))
        keys, alive = self._n.spaces.index.along(slots)
        alive &= (state & PRESENT) != 0
        self._remove_from_trees(slots, keys, state, alive)
        self._n.table.free_items(slots[np.flatnonzero(~alive)])
        ksm = alive & ((state & (KSM | ORPHAN)) == KSM)
        rows = np.flatnonzero(ksm)
        self._visit_ksm(slots[rows], keys[rows])
        private = rows_where(alive & ~ksm)
        self._visit_private(slots[private], keys[private], state[private])

    def _remove_from_trees(self, slots: Slots, keys: ItemKeys, state: U16, alive: Bool) -> None:
        """Remove items from the unstable tree, and from stable nodes of frames that their pages have left
        (remove_rmap_item_from_tree()).

        `state` holds the items' states, and is brought up to date. `alive` says which pages are present and
        mergeable.
        """
        rows = rows_with(state, UNSTABLE | BROKEN_OUT)
        if len(rows) == 0:
            return
        slots, keys, alive = slots[rows], keys[rows], alive[rows]
        n, of_rows = self._n, state[rows]
        in_tree = (of_rows & IN_UNSTABLE_TREE) != 0
        gone = np.flatnonzero(~alive & in_tree)
        if len(gone):
            _, digests, homes = n.unstable_entries(slots[gone])
            kinds = np.full(len(homes), VisitKind.ERASE, np.uint8)
            n.out.send(Kind.EVENT, homes, digests, keys[gone], np.full(len(homes), -1), kinds)
        self._faults.send_withdraw(slots[np.flatnonzero(alive & in_tree)])
        broken_out = rows_with(of_rows, BROKEN_OUT)
        if len(broken_out):
            frames, digests = n.table.take_broken_out(slots[broken_out])
            if n.leaving_ends_age:
                aging = alive[broken_out] & ((of_rows[broken_out] & KSM) == 0)
                self._left.append((slots[broken_out][aging], frames[aging]))
            self._send(VisitKind.LEAVE, digests, keys[broken_out], frames)
        state[rows] = n.table.remove_from_trees(slots)

    def _send(self, kind: VisitKind, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        self._send_events(np.full(len(keys), kind, np.uint8), digests, keys, frames)

    def _send_events(self, kinds: U8, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        homes = self._n.home_of_frames(digests, frames)
        self._n.send_to_trees(Kind.EVENT, homes, frames, digests, keys, frames, kinds)

    def _visit_ksm(self, slots: Slots, keys: ItemKeys) -> None:
        """Visit pages that map a KSM frame; those of a forked child join its stable node unchecked."""
        if len(slots) == 0:
            return
        n, table = self._n, self._n.table
        frames = table.pte[slots]
        state = table.state[slots]
        joined = (state & STABLE) != 0
        table.visit_ksm(slots)
        migrated = n.migrated_stable_nodes.among(frames)
        self._visit_migrated(slots[migrated], keys[migrated])
        new = ~joined & ~migrated
        self._send(VisitKind.APPEND, table.tree_key[slots[new]], keys[new], frames[new])
        table.set_stable(slots[new])

    def _visit_migrated(self, slots: Slots, keys: ItemKeys) -> None:
        """Visit pages that map KSM frames whose stable nodes are in the trees of other nodes."""
        if len(slots) == 0:
            return
        table = self._n.table
        self._n.counters["checksums"] += len(slots)
        state, digests = table.state[slots], table.tree_key[slots]
        unchanged = ((state & HAS_CHECKSUM) != 0) & (table.checksums(slots) == checksum(digests))
        kinds = VisitKind.MIGRATED + ((state & STABLE) != 0) + 2 * ~unchanged
        self._send_events(kinds.astype(np.uint8), digests, keys, table.pte[slots])

    def _visit_private(self, slots: Slots, keys: ItemKeys, state: U16) -> None:
        n, table = self._n, self._n.table
        at = run_of(slots)
        frames = taken(table.pte, at)
        is_here = on_node(frames, n.id)
        if not is_here.all():
            away, here = np.flatnonzero(~is_here), np.flatnonzero(is_here)
            table.add_items(slots[away])
            to = node_of_frame(frames[away])
            n.out.send(Kind.CONTENT_REQUEST, to, slots[away], keys[away], frames[away])
            at = slots = slots[here]
            keys, frames, state = keys[here], frames[here], state[here]
        self._compare(slots, at, keys, frames, state, n.frames.content[pfn_of(frames)])

    def on_content_request(self, slots: Slots, keys: ItemKeys, frames: FrameWords) -> None:
        n = self._n
        content = n.frames.content[pfn_of(frames)]
        n.out.send(Kind.CONTENT_REPLY, node_of_key(keys), slots, keys, content)

    def on_content_reply(self, slots: Slots, keys: ItemKeys, content: U64) -> None:
        table = self._n.table
        self._compare(slots, slots, keys, table.pte[slots], table.state[slots], content)

    def _compare(
        self,
        slots: Slots,
        at: Slots | slice,
        keys: ItemKeys,
        frames: FrameWords,
        state: U16,
        digests: Digests,
    ) -> None:
        """Compare checksums, and look pages up in the trees that have not changed since the last visit.

        `at` is an index of the slots; `state` holds their states, and is overwritten.
        """
        n, table = self._n, self._n.table
        same = self._unchanged(slots, at, state, digests)
        shared, fixed = (state & SHARED) != 0, (state & ORPHAN) != 0
        if len(n.pinned):
            fixed |= n.fixed(slots)
            frames = n.tree_words(slots)
        kinds = np.full(len(slots), VisitKind.CANDIDATE, np.uint8)
        kinds[np.flatnonzero(shared)] = VisitKind.CANDIDATE_SHARED
        kinds[np.flatnonzero(fixed)] = VisitKind.CANDIDATE_FIXED
        sent = waits = same
        zero = slots[:0]
        if n.knobs.use_zero_pages:
            zeros = same & (digests == 0) & ~fixed
            kinds[np.flatnonzero(zeros)] = VisitKind.STABLE_OR_ZERO
            if n.profile.split_maps_zero_page and n.huge_pages.used:
                huge = zeros & is_huge_word(frames)
                kinds[np.flatnonzero(huge)] = VisitKind.HUGE_ZERO
                zeros &= ~huge
            waits = same & ~zeros
            if n.profile.checksum_first:
                zero, sent = slots[np.flatnonzero(zeros)], waits
        looking = ~same & shared if n.profile.checksum_first else ~same
        found_changed = np.flatnonzero(looking)
        if n.profile.checksum_first:
            kinds[found_changed] = VisitKind.VOLATILE_SHARED
        else:
            kinds[found_changed] = np.where(
                fixed[found_changed], VisitKind.STABLE_ONLY_FIXED, VisitKind.STABLE_ONLY
            )
        self._note_changed(slots[found_changed], state[found_changed])
        n.counters["changed"] += len(slots) - int(np.count_nonzero(same))

        # Candidates wait in the unstable tree unless its home sends another decision.
        table.visit_private(slots, at, state, digests, rows_where(waits))
        self.map_zero(zero)
        rows = rows_where(sent | looking)
        digests, frames = digests[rows], frames[rows]
        homes = n.home_of_frames(digests, frames)
        if not n.homes_follow:
            table.set_homes(slots[rows], homes)
        n.send_to_trees(Kind.EVENT, homes, frames, digests, keys[rows], frames, kinds[rows])

    def _unchanged(self, slots: Slots, at: Slots | slice, state: U16, digests: Digests) -> Bool:
        """Return which items have the checksums of these contents; `at` is an index of their slots."""
        table = self._n.table
        same: Bool = (state & (HAS_CHECKSUM | OTHER_CHECKSUM)) == HAS_CHECKSUM
        if same.any():
            same &= table.tree_key[at] == digests
        checked = (state & HAS_CHECKSUM) != 0
        other = np.flatnonzero(checked & ~same)
        same[other] = table.checksums(slots[other]) == checksum(digests[other])
        return same

    def _note_changed(self, slots: Slots, state: U16) -> None:
        if len(slots):
            self._changed.append((slots, self._n.table.checksums(slots), state))

    def undo_checksums(self, slots: Slots) -> None:
        """Give pages of this window the checksums that they had before it.

        They were merged, which the kernel does before it compares checksums.
        """
        table = self._n.table
        for changed, sums, states in self._changed:
            mine = np.isin(changed, slots)
            checked = (states & HAS_CHECKSUM) != 0
            table.restore_checksums(changed[mine & checked], sums[mine & checked])
            table.forget_checksums(changed[mine & ~checked])

    def map_zero(self, slots: Slots) -> None:
        """Map the zero page instead of the frames of pages of zeros."""
        if len(slots):
            self._faults.put(self._n.table.pte[slots])
            self._n.table.map_ksm_zero(slots)
