"""ksmd's visits to the pages of one node's processes (scan_get_next_rmap_item(), cmp_and_merge_page()).

A visit that finds nothing changed has no effect, so only slots marked ACTIVE are looked at; what they need
from the trees is sent as events to the nodes that keep the contents' entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cluster.commands import Locate
from cluster.faults import Faults
from cluster.mailbox import Kind
from cluster.page_table import ACTIVE, ITEM, KSM, PRESENT, PTE_ZERO, SHARED, STABLE, UNSTABLE, ZEROED
from cluster.state import NodeState
from cluster.vma import Vma, positions
from cluster.window import Window
from cluster.words import I64, U8, U64, VPN_BITS, Bool, checksum, node_of_frame, node_of_key, pfn_of

#: Visits that smart_scan skips after a visit of a page of that age (skip_age()).
SKIP_AGE = np.array([1] * 4 + [2] * 2 + [4] * 3 + [8] * 247, np.uint8)
#: A page younger than this is never skipped.
SKIP_FROM_AGE = 3


class Event(IntEnum):
    """What a visit asks of the trees."""

    #: Look this page up, and merge it or let it wait.
    CANDIDATE = 0
    #: The same; other entries map its frame too, since a fork.
    CANDIDATE_SHARED = 1
    #: The item leaves the stable node of this frame.
    LEAVE = 2
    #: The entry maps a KSM frame since a fork: the item joins that stable node.
    JOIN_OWN = 3
    #: Only the stable tree is searched; nothing happens if it does not have the content.
    STABLE_ONLY = 4


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

    def scan(self, window: Window) -> None:
        """Visits every page of the window; what becomes of candidates is decided elsewhere."""
        n = self._n
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
        if len(slots):
            n.version += 1
            self._visit(slots)

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
        pages = command.pages
        for vma in self._n.spaces.mms[command.mm].vmas:
            slots = self._to_visit(vma, command.low)
            if pages <= len(slots):
                vpn = vma.start + int(slots[pages - 1]) - vma.slot0
                rank = command.low >> VPN_BITS
                return (rank << VPN_BITS) + vpn + 1
            pages -= len(slots)
        raise ValueError(f"process {command.mm} has fewer than {command.pages} pages to scan")

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
        rank = int(self._n.rank_of(np.array([vma.mm << VPN_BITS]))[0])
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

    def _leave_trees(self, slots: I64) -> None:
        """remove_rmap_item_from_tree(); the pages are to be looked up anew at their next visit."""
        n, table = self._n, self._n.table
        n.version += 1
        self._faults.withdraw(slots)
        keys, pos = self._name(slots)
        state = table.state[slots]
        hanging = (state & STABLE) != 0
        self._leave(slots[hanging], keys[hanging], pos[hanging])
        table.state[slots] = (state & ~np.uint8(UNSTABLE | STABLE)) | ACTIVE

    # Visits.

    def _name(self, slots: I64) -> tuple[I64, I64]:
        """Item keys and scan positions."""
        index = self._n.spaces.index
        keys = index.keys(slots, index.vma_of(slots))
        return keys, positions(keys, self._n.rank_of(keys))

    def _visit(self, slots: I64) -> None:
        n, table = self._n, self._n.table
        index = n.spaces.index
        keys, pos = self._name(slots)
        state = table.state[slots]
        broken = (state & (STABLE | KSM)) == STABLE
        self._leave(slots[broken], keys[broken], pos[broken])
        state[broken] &= ~np.uint8(STABLE)
        alive = ((state & PRESENT) != 0) & index.mergeable[index.vma_of(slots)]
        self._forget(slots[~alive], state[~alive])
        ksm = alive & ((state & KSM) != 0)
        self._join_own(slots[ksm], keys[ksm], pos[ksm], state[ksm])
        private = alive & ~ksm
        self._visit_private(slots[private], keys[private], pos[private], state[private])

    def _leave(self, slots: I64, keys: I64, pos: I64) -> None:
        n, table = self._n, self._n.table
        self._send(Event.LEAVE, table.tree_key[slots], pos, keys, n.broken.take(slots))

    def _send(self, event: Event, digests: U64, pos: I64, keys: I64, frames: I64) -> None:
        kinds = np.full(len(keys), event, np.uint8)
        self._send_events(kinds, digests, pos, keys, frames)

    def _send_events(self, kinds: U8, digests: U64, pos: I64, keys: I64, frames: I64) -> None:
        n = self._n
        n.out.send(Kind.EVENT, n.home_of_frames(digests, frames), digests, pos, keys, frames, kinds)

    def _forget(self, slots: I64, state: U8) -> None:
        """Items of pages that are gone, or not mergeable any more, are freed."""
        table = self._n.table
        leaving = slots[(state & (STABLE | KSM)) == (STABLE | KSM)]
        if len(leaving):
            keys, pos = self._name(leaving)
            self._send(Event.LEAVE, table.tree_key[leaving], pos, keys, table.pte[leaving])
        table.state[slots] = state & (KSM | SHARED | ZEROED | PRESENT)
        table.age[slots] = 0
        table.remaining_skips[slots] = 0

    def _join_own(self, slots: I64, keys: I64, pos: I64, state: U8) -> None:
        """Pages that map a KSM frame: a forked child's join its stable node without a look at checksums."""
        table = self._n.table
        new = (state & STABLE) == 0
        self._send(Event.JOIN_OWN, table.tree_key[slots[new]], pos[new], keys[new], table.pte[slots[new]])
        table.state[slots] = (state | ITEM | STABLE) & ~np.uint8(ACTIVE)

    def _visit_private(self, slots: I64, keys: I64, pos: I64, state: U8) -> None:
        n, table = self._n, self._n.table
        new = (state & ITEM) == 0
        table.state[slots] = (state | ITEM) & ~np.uint8(UNSTABLE)
        frames = table.pte[slots]
        away = node_of_frame(frames) != n.id
        if away.any():
            table.state[slots[away & new]] &= ~np.uint8(ITEM)
            n.out.send(
                Kind.CONTENT_REQUEST, node_of_frame(frames[away]), slots[away], keys[away], frames[away]
            )
            here = ~away
            slots, keys, pos, new, frames = slots[here], keys[here], pos[here], new[here], frames[here]
        self._compare(slots, keys, pos, new, frames, n.frames.content[pfn_of(frames)])

    def on_content_request(self, slots: I64, keys: I64, frames: I64) -> None:
        n = self._n
        content = n.frames.content[pfn_of(frames)]
        n.out.send(Kind.CONTENT_REPLY, node_of_key(keys), slots, keys, content)

    def on_content_reply(self, slots: I64, keys: I64, content: U64) -> None:
        n, table = self._n, self._n.table
        new = (table.state[slots] & ITEM) == 0
        table.state[slots] |= ITEM
        self._compare(slots, keys, positions(keys, n.rank_of(keys)), new, table.pte[slots], content)

    def _compare(self, slots: I64, keys: I64, pos: I64, new: Bool, frames: I64, digests: U64) -> None:
        """The checksum test; pages that pass it are looked up in the trees."""
        n, table = self._n, self._n.table
        sums = checksum(digests)
        same = (table.checksum[slots] == sums) & ~new
        table.checksum[slots] = sums
        n.counters["changed"] += int(np.count_nonzero(~same))
        if n.knobs.use_zero_pages:
            zero = same & (digests == 0)
            self._map_zero(slots[zero], frames[zero])
            same &= ~zero
        slots, keys, pos, frames, digests = slots[same], keys[same], pos[same], frames[same], digests[same]
        table.tree_key[slots] = digests
        kinds = np.where(table.state[slots] & SHARED, Event.CANDIDATE_SHARED, Event.CANDIDATE).astype(
            np.uint8
        )
        self._send_events(kinds, digests, pos, keys, frames)

    def _map_zero(self, slots: I64, frames: I64) -> None:
        """Pages of zeros give up their frames; their items live until the next pass."""
        table = self._n.table
        self._faults.put(frames)
        table.pte[slots] = PTE_ZERO
        table.state[slots] = ITEM | ZEROED | ACTIVE
