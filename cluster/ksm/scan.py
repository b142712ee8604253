"""ksmd's visits to the pages of one node's processes (scan_get_next_rmap_item(), cmp_and_merge_page()).

A visit that finds nothing changed has no effect, so only slots marked ACTIVE are looked at; what they need
from the trees is sent as events to the nodes that keep the contents' entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.columns import rows_where, rows_with, run_of, taken
from cluster.arrays.words import (
    I64,
    U8,
    U16,
    U32,
    U64,
    VPN_BITS,
    Bool,
    checksum,
    node_of_frame,
    node_of_key,
    on_node,
    pfn_of,
)
from cluster.ksm.visit import Event
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_table import (
    ACTIVE,
    ASIDE,
    BROKEN,
    CHECKED,
    ITEM,
    KSM,
    ORPHAN,
    PRESENT,
    PTE_ZERO,
    SHARED,
    STABLE,
    UNSTABLE,
    WAITING,
    ZEROED,
)
from cluster.mm.vma import Vma
from cluster.wire.commands import Locate
from cluster.wire.messages import Kind
from cluster.wire.window import Window

#: Most pages visited at once: so few that columns of them stay in a core's cache.
PORTION = 1 << 15
#: Visits that smart_scan skips after a visit of a page of that age (skip_age()).
SKIP_AGE = np.array([1] * 4 + [2] * 2 + [4] * 3 + [8] * 247, np.uint8)
#: A page younger than this is never skipped.
SKIP_FROM_AGE = 3


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots [start, stop) that belong to mergeable VMAs, or not."""

    start: int
    stop: int
    mergeable: bool


class Scanner:
    def __init__(self, node: NodeState, faults: Faults) -> None:
        self._n = node
        self._faults = faults
        #: Pages of this window that were found changed, but are looked up all the same: slots, and their
        #: checksums and states before.
        self._changed: list[tuple[I64, U32, U16]] = []

    def scan(self, window: Window) -> None:
        """Visits every page of the window; what becomes of candidates is decided elsewhere."""
        n = self._n
        self._changed = []
        state = n.table.state
        active = []
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
            hit = (part & ACTIVE) != 0
            if skipped is not None:
                hit &= ~skipped
            active.append(np.flatnonzero(hit) + run.start)
        slots = np.concatenate(active) if active else np.empty(0, np.int64)
        for low in range(0, len(slots), PORTION):
            n.version += 1
            self._visit(slots[low : low + PORTION])

    def ranges(self, window: Window) -> list[SlotRange]:
        """Slots of the window's part of every process in ksmd's list; neighbours are joined."""
        n = self._n
        runs: list[SlotRange] = []
        index = n.spaces.index
        for i in index.by_slot:
            vma = index.vmas[i]
            low, high = self._clip(vma, window)
            if low >= high:
                continue
            start, stop = vma.slot0 + low - vma.start, vma.slot0 + high - vma.start
            if runs and runs[-1].stop == start and runs[-1].mergeable == vma.mergeable:
                start = runs.pop().start
            runs.append(SlotRange(start, stop, vma.mergeable))
        return runs

    def count(self, low: int) -> dict[int, int]:
        """Pages that a scan from position `low` to the end of the pass would visit, by process."""
        counts: dict[int, int] = {}
        for vma in self._n.spaces.index.vmas:
            counts[vma.mm] = counts.get(vma.mm, 0) + len(self._to_visit(vma, low))
        return counts

    def locate(self, command: Locate) -> int:
        """The position behind so many pages of one process."""
        pages = command.nr_pages
        for vma in self._n.spaces.mms[command.mm].vmas:
            slots = self._to_visit(vma, command.low)
            if pages <= len(slots):
                vpn = vma.start + int(slots[pages - 1]) - vma.slot0
                rank = command.low >> VPN_BITS
                return (rank << VPN_BITS) + vpn + 1
            pages -= len(slots)
        raise ValueError(f"process {command.mm} has fewer than {command.nr_pages} pages to scan")

    def _to_visit(self, vma: Vma, low: int) -> I64:
        """Slots of the VMA's pages from position `low` on that ksmd would visit."""
        start, stop = self._clip(vma, Window(0, low))
        if not vma.mergeable or start >= stop:
            return np.empty(0, np.int64)
        table = self._n.table
        part = slice(vma.slot0 + start - vma.start, vma.slot0 + stop - vma.start)
        visit = (table.state[part] & PRESENT) != 0
        if self._n.knobs.smart_scan:
            skipped = (table.age[part] >= SKIP_FROM_AGE) & (table.remaining_skips[part] != 0)
            visit &= ~(skipped & ((table.state[part] & KSM) == 0))
        return np.flatnonzero(visit) + part.start

    def _clip(self, vma: Vma, window: Window) -> tuple[int, int]:
        """Virtual pages of the VMA that the window covers."""
        rank = self._n.rank_of(vma.mm)
        if rank < 0:
            return 0, 0
        base = rank << VPN_BITS
        return max(vma.start, window.low - base), min(vma.end, window.high - base)

    # smart_scan (should_skip_rmap_item()).

    def _skip(self, run: SlotRange) -> Bool:
        """Which pages of the run are skipped now; ages them all."""
        table = self._n.table
        part = slice(run.start, run.stop)
        state, age, skips = table.state[part], table.age[part], table.remaining_skips[part]
        aging = (state & (PRESENT | KSM)) == PRESENT
        old = aging & (age >= SKIP_FROM_AGE)
        visit = old & (skips == 0)
        skipped: Bool = old & (skips != 0)
        skips[visit] = SKIP_AGE[age[visit]]
        skips[skipped] -= 1
        age[aging & (age != 255)] += 1
        leaving = skipped & ((state & (UNSTABLE | STABLE)) != 0)
        if leaving.any():
            self._leave_trees(np.flatnonzero(leaving) + run.start)
        return skipped

    def unskip(self, slots: I64) -> Bool:
        """Undoes what the last window did to pages of these slots; tells which of them were skipped."""
        table = self._n.table
        table.age[slots] -= 1
        age, skips = table.age[slots], table.remaining_skips[slots]
        old = age >= SKIP_FROM_AGE
        # Just visited, a page has all its skips before it: no page younger by a visit has so many left.
        visited = old & (skips == SKIP_AGE[age])
        skipped: Bool = old & ~visited
        table.remaining_skips[slots[visited]] = 0
        table.remaining_skips[slots[skipped]] += 1
        return skipped

    def _leave_trees(self, slots: I64) -> None:
        """remove_rmap_item_from_tree(); the pages are to be looked up anew at their next visit."""
        self._n.version += 1
        keys, state = self._n.keys_of(slots), self._n.table.state[slots]
        self._take_out(slots, keys, state, np.ones(len(slots), np.bool_))
        self._n.table.state[slots] = state | ACTIVE

    # Visits.

    def _visit(self, slots: I64) -> None:
        state = taken(self._n.table.state, run_of(slots))
        keys, alive = self._n.spaces.index.along(slots)
        alive &= (state & PRESENT) != 0
        self._take_out(slots, keys, state, alive)
        self._forget(slots[np.flatnonzero(~alive)])
        ksm = alive & ((state & (KSM | ORPHAN)) == KSM)
        rows = np.flatnonzero(ksm)
        self._visit_ksm(slots[rows], keys[rows])
        private = rows_where(alive & ~ksm)
        self._visit_private(slots[private], keys[private], state[private])

    def _take_out(self, slots: I64, keys: I64, state: U16, alive: Bool) -> None:
        """Items leave the trees, but for the stable node of the frame mapped now; `state` is theirs."""
        rows = rows_with(state, UNSTABLE | WAITING | BROKEN)
        if len(rows) == 0:
            return
        slots, keys, alive = slots[rows], keys[rows], alive[rows]
        n, of_hung = self._n, state[rows]
        waiting = (of_hung & WAITING) != 0
        gone = np.flatnonzero(~alive & waiting)
        if len(gone):
            _, digests, homes = n.waiting(slots[gone])
            kinds = np.full(len(homes), Event.ERASE, np.uint8)
            n.out.send(Kind.EVENT, homes, digests, keys[gone], np.full(len(homes), -1), kinds)
        self._faults.withdraw(slots[np.flatnonzero(alive & waiting)])
        broken = rows_with(of_hung, BROKEN)
        self._leave(slots[broken], keys[broken])
        of_hung &= ~np.uint16(UNSTABLE | WAITING)
        of_hung[broken] &= ~np.uint16(STABLE | BROKEN)
        state[rows] = n.table.state[slots] = of_hung

    def _leave(self, slots: I64, keys: I64) -> None:
        if len(slots):
            frames, digests = self._n.broken.take(slots)
            self._send(Event.LEAVE, digests, keys, frames)

    def _send(self, event: Event, digests: U64, keys: I64, frames: I64) -> None:
        self._send_events(np.full(len(keys), event, np.uint8), digests, keys, frames)

    def _send_events(self, kinds: U8, digests: U64, keys: I64, frames: I64) -> None:
        homes = self._n.home_of_frames(digests, frames)
        self._n.send_to_trees(Kind.EVENT, homes, frames, digests, keys, frames, kinds)

    def _forget(self, slots: I64) -> None:
        """Items of pages that are gone, or not mergeable any more, are freed."""
        table = self._n.table
        table.state[slots] &= KSM | ORPHAN | SHARED | ZEROED | PRESENT
        table.rejuvenate(slots)

    def _visit_ksm(self, slots: I64, keys: I64) -> None:
        """Pages that map a KSM frame: a forked child's join its stable node without a look at checksums."""
        if len(slots) == 0:
            return
        n, table = self._n, self._n.table
        frames = table.pte[slots]
        state = table.state[slots]
        hanging = (state & STABLE) != 0
        table.state[slots] = (state | ITEM) & ~np.uint16(ACTIVE)
        stray = np.zeros(len(slots), np.bool_)
        if n.migrated_stable_nodes:
            stray = np.isin(frames, list(n.migrated_stable_nodes))
            self._visit_strays(slots[stray], keys[stray])
        new = ~hanging & ~stray
        self._send(Event.JOIN_OWN, table.tree_key[slots[new]], keys[new], frames[new])
        table.state[slots[new]] |= STABLE

    def _visit_strays(self, slots: I64, keys: I64) -> None:
        table = self._n.table
        state, digests = table.state[slots], table.tree_key[slots]
        seen = ((state & CHECKED) != 0) & (table.checksums(slots) == checksum(digests))
        kinds = Event.STRAY + ((state & STABLE) != 0) + 2 * ~seen
        self._send_events(kinds.astype(np.uint8), digests, keys, table.pte[slots])

    def _visit_private(self, slots: I64, keys: I64, state: U16) -> None:
        n, table = self._n, self._n.table
        at = run_of(slots)
        frames, state = taken(table.pte, at), state | np.uint16(ITEM)
        is_here = on_node(frames, n.id)
        if not is_here.all():
            away, here = np.flatnonzero(~is_here), np.flatnonzero(is_here)
            table.state[slots[away]] = state[away]
            to = node_of_frame(frames[away])
            n.out.send(Kind.CONTENT_REQUEST, to, slots[away], keys[away], frames[away])
            at = slots = slots[here]
            keys, frames, state = keys[here], frames[here], state[here]
        self._compare(slots, at, keys, frames, state, n.frames.content[pfn_of(frames)])

    def on_content_request(self, slots: I64, keys: I64, frames: I64) -> None:
        n = self._n
        content = n.frames.content[pfn_of(frames)]
        n.out.send(Kind.CONTENT_REPLY, node_of_key(keys), slots, keys, content)

    def on_content_reply(self, slots: I64, keys: I64, content: U64) -> None:
        table = self._n.table
        self._compare(slots, slots, keys, table.pte[slots], table.state[slots], content)

    def _compare(self, slots: I64, at: I64 | slice, keys: I64, frames: I64, state: U16, digests: U64) -> None:
        """The checksum test; pages that pass it are looked up in the trees.

        `at` is an index of the slots, `state` that of the visit.
        """
        n, table = self._n, self._n.table
        same = self._seen(slots, at, state, digests)
        shared = (state & SHARED) != 0
        kinds = np.full(len(slots), Event.CANDIDATE, np.uint8)
        kinds[np.flatnonzero(shared)] = Event.CANDIDATE_SHARED
        kinds[rows_with(state, ORPHAN)] = Event.CANDIDATE_ORPHAN
        sent = waits = same
        zero = slots[:0]
        if n.knobs.use_zero_pages:
            zeros = same & (digests == 0) & ((state & ORPHAN) == 0)
            kinds[np.flatnonzero(zeros)] = Event.STABLE_OR_ZERO
            waits = same & ~zeros
            if n.profile.checksum_first:
                zero, sent = slots[np.flatnonzero(zeros)], waits
        looking = ~same & shared if n.profile.checksum_first else ~same
        found_changed = np.flatnonzero(looking)
        kinds[found_changed] = Event.VOLATILE_SHARED if n.profile.checksum_first else Event.STABLE_ONLY
        self._note_changed(slots[found_changed], state[found_changed])
        n.counters["changed"] += len(slots) - int(np.count_nonzero(same))

        table.tree_key[at] = digests
        state = (state | np.uint16(CHECKED)) & ~np.uint16(ASIDE)
        # Candidates wait in the unstable tree unless its home tells something else.
        rows = rows_where(waits)
        state[rows] = _waiting(state[rows])
        table.state[at] = state
        self.map_zero(zero)
        rows = rows_where(sent | looking)
        digests, frames = digests[rows], frames[rows]
        homes = n.home_of_frames(digests, frames)
        self._keep_homes(slots[rows], homes)
        n.send_to_trees(Kind.EVENT, homes, frames, digests, keys[rows], frames, kinds[rows])

    def _seen(self, slots: I64, at: I64 | slice, state: U16, digests: U64) -> Bool:
        """Whether items have the checksums of these contents; `at` is an index of their slots."""
        table = self._n.table
        same: Bool = (state & (CHECKED | ASIDE)) == CHECKED
        if same.any():
            same &= table.tree_key[at] == digests
        checked = (state & CHECKED) != 0
        other = np.flatnonzero(checked & ~same)
        same[other] = table.checksums(slots[other]) == checksum(digests[other])
        return same

    def _note_changed(self, slots: I64, state: U16) -> None:
        if len(slots):
            self._changed.append((slots, self._n.table.checksums(slots), state))

    def await_change(self, slots: I64, homes: I64) -> None:
        """These pages wait in unstable trees of these homes."""
        self._keep_homes(slots, homes)
        self._n.table.state[slots] = _waiting(self._n.table.state[slots])

    def _keep_homes(self, slots: I64, homes: I64) -> None:
        if not self._n.homes_follow:
            self._n.table.home[slots] = homes

    def unsee(self, slots: I64) -> None:
        """These pages were merged before anybody compared their checksums."""
        table = self._n.table
        for changed, sums, states in self._changed:
            mine = np.isin(changed, slots)
            checked = (states & CHECKED) != 0
            table.remember(changed[mine & checked], sums[mine & checked])
            table.state[changed[mine & ~checked]] &= ~np.uint16(CHECKED)

    def map_zero(self, slots: I64) -> None:
        """Pages of zeros give up their frames; their items live until the next pass."""
        if len(slots) == 0:
            return
        table = self._n.table
        self._faults.put(table.pte[slots])
        table.pte[slots] = PTE_ZERO
        table.state[slots] = (table.state[slots] & (CHECKED | ASIDE)) | ITEM | ZEROED | ACTIVE


def _waiting(state: U16) -> U16:
    """States of pages once they wait: nothing is to be done until something changes.

    The page of a KSM frame is to go back to its stable node, though.
    """
    state = (state | np.uint16(UNSTABLE | WAITING)) & ~np.uint16(STABLE | ACTIVE)
    state[rows_with(state, KSM)] |= ACTIVE
    return state
