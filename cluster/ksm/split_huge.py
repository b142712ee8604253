"""Splits of huge pages in a scan window: which try splits a huge page, and what a split changes.

A node is the owner of the huge pages that its processes map; all processes that map one are on one node.
Models `__split_huge_page()` and `try_to_map_unused_to_zeropage()` of mm.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import changes, find_unsorted, is_in, is_in_runs, rows_with
from cluster.arrays.words import (
    HUGE_FRAME,
    HUGE_ORDER,
    HUGE_SIZE,
    I64,
    FrameWords,
    ItemKeys,
    Slots,
    block_of,
    empty,
    frames_of_blocks,
    mm_of_key,
    node_of_frame,
    on_node,
    pfn_of,
)
from cluster.ksm.trees import Trees
from cluster.mm.faults import Faults
from cluster.mm.huge.mappings import HugeMappings
from cluster.mm.huge.split_times import NEVER, SplitTimes
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import HUGE, INITIAL_FRAME, ITEM, PTE_ZERO, SHARED
from cluster.mm.vma import Mm, Vma
from cluster.wire.commands import SplitParts
from cluster.wire.messages import Kind
from cluster.wire.window import END


class HugeSplitter:
    """One node's part in the splits of huge pages."""

    def __init__(self, node: NodeState, trees: Trees, faults: Faults, huge: HugeMappings) -> None:
        self._n = node
        self._trees = trees
        self._faults = faults
        self._huge = huge
        self._forget()

    def _forget(self) -> None:
        #: Tries of the round: block, scan position, nth.
        self._tries: list[tuple[I64, I64, I64]] = []
        #: Of the huge pages of this node's processes: the times told last, and how many tries fail before.
        self._told = SplitTimes()
        self._failing: dict[int, int] = {}
        #: Slots of the huge pages that were split last.
        self._slots: Slots = empty()
        #: Pages that the window did not visit after all, because splits took them away.
        self.undone = 0
        #: Slots of the huge pages that `split_parts` has split before a move: these move with the others. Of
        #: each, the first page of the move, whose migration splits it.
        self.along: Slots = empty()
        self._asked: Slots = empty()

    # Which try splits.

    def start_window(self) -> None:
        """Forget the splits of the window before."""
        self._n.split_times.clear()
        self._forget()

    def on_try(self, blocks: I64, _keys: ItemKeys, positions: I64, nths: I64) -> None:
        self._tries.append((blocks, positions, nths))

    def settle(self) -> bool:
        """Find the try that splits each huge page; tell all nodes what has changed, and return if any has."""
        n = self._n
        blocks, positions, nths = (
            np.concatenate([empty(), *column]) for column in zip((empty(),) * 3, *self._tries, strict=True)
        )
        self._tries = []
        order = np.lexsort((nths, positions, blocks))
        blocks, positions, nths = blocks[order], positions[order], nths[order]
        tried, start, count = np.unique(blocks, return_index=True, return_counts=True)
        failing = np.minimum(self._to_fail(tried), count)
        at = np.minimum(start + failing, max(len(blocks) - 1, 0))
        splits = failing < count
        positions = np.where(splits, positions[at], NEVER[0])
        nths = np.where(splits, nths[at], NEVER[1])
        fails = np.flatnonzero(failing)
        self._failing = dict(zip(tried[fails].tolist(), failing[fails].tolist(), strict=True))
        changed = self._told.change_to(tried, positions, nths)
        to = np.repeat(np.arange(n.nodes), len(changed[0]))
        n.out.send(Kind.SPLIT_AT, to, *(np.tile(column, n.nodes) for column in changed))
        return len(to) > 0

    def _to_fail(self, blocks: I64) -> I64:
        """Return how many tries to split these huge pages fail: int64[n] -> int64[n].

        On some kernels each turns a PMD into page tables, until a PMD of the last process alone is left.
        """
        n, fail = self._n, np.zeros(len(blocks), np.int64)
        if not n.profile.split_stops_at_pmd or not (n.table.state[: n.table.size] & SHARED).any():
            return fail
        for i, block in enumerate(blocks.tolist()):
            fail[i] = len(self._stopping(block))
        return fail

    def _stopping(self, block: int) -> Slots:
        """Return the bases of PMDs of a huge page that other processes map after them."""
        n = self._n
        rows = self._mapping(np.array([block]))
        bases = np.unique(n.bases_of(rows))
        bases = bases[np.argsort(n.keys_of(bases))]
        return bases[:-1][n.huge_pages.by_pmd(bases[:-1])]

    def _mapping(self, blocks: I64) -> Slots:
        """Return the slots that map frames of these huge pages; blocks ascend."""
        table = self._n.table
        slots = rows_with(table.state[: table.size], HUGE)
        return slots[is_in_runs(block_of(table.pte[slots]), blocks)]

    # Splits otherwise than by ksmd.

    def split_parts(self, mm: Mm, vmas: list[Vma], command: SplitParts) -> None:
        """Split huge pages of which a part is paged out, or that are partly unmapped and move."""
        n, table = self._n, self._n.table
        self.along = self._asked = empty()
        if not n.huge_pages.used:
            return
        torn: list[I64] = []
        for low, high in mm.anon_vmas.parts(command.start, command.start + command.nr_pages):
            parts = [np.arange(v.slot0, v.slot0 + v.pages) for v in vmas if low <= v.start < high]
            slots = np.concatenate([empty(), *parts])
            slots = slots[((table.state[slots] & HUGE) != 0) & ~n.stays(slots)]
            if command.to >= 0:
                torn.append(self._deferred_elsewhere(slots, command.to))
                continue
            slots = slots[self._huge.only_mapper(slots)]
            blocks, count = np.unique(block_of(table.pte[slots]), return_counts=True)
            torn.append(blocks[count < HUGE_SIZE])
        blocks = np.unique(np.concatenate([empty(), *torn]))
        if command.to >= 0:
            self.along = self._mapping(blocks)
            moved = [v.slot0 + np.arange(v.pages) for v in vmas]
            self._asked = self._first_pages(np.concatenate([empty(), *moved]), blocks)
        to = np.repeat(np.arange(n.nodes), len(blocks))
        n.out.send(Kind.SPLIT, to, np.tile(blocks, n.nodes))

    def try_split(self, slot: int) -> None:
        """Try to split the huge page of a page, for memory failure or soft offline."""
        n = self._n
        block = block_of(int(n.table.pte[slot]))
        stopping = self._stopping(block)[:1] if n.profile.split_stops_at_pmd else empty()
        if len(stopping) == 0 and not n.fixed(np.array([slot])).any():
            n.out.send(Kind.SPLIT, np.arange(n.nodes), np.full(n.nodes, block))
            return
        n.counters["thp_split_page_failed"] += 1
        if not n.fixed(np.array([slot])).any():
            n.counters["thp_split_pmd"] += n.huge_pages.unmap(stopping)

    def _first_pages(self, slots: Slots, blocks: I64) -> Slots:
        """Return the first of these slots, which ascend by address, that maps each of the huge pages."""
        table = self._n.table
        slots = slots[(table.state[slots] & HUGE) != 0]
        of, first = np.unique(block_of(table.pte[slots]), return_index=True)
        return slots[first[is_in(of, blocks)]]

    def moved_zeros(self) -> int:
        """Return how many pages of zeros have moved, and were unmapped by the splits that this took.

        Pages are moved one by one: the others of these huge pages are gone when it is their turn.
        """
        return int(np.count_nonzero(self._n.table.pte[self._asked] == PTE_ZERO))

    def _deferred_elsewhere(self, slots: Slots, node: int) -> I64:
        """Return the partly unmapped huge pages of these pages that are on other nodes."""
        frames = self._n.table.pte[slots]
        blocks = block_of(frames[~on_node(frames, node)])
        return blocks[np.isin(blocks, list(self._n.huge_pages.deferred))]

    def on_split(self, blocks: I64) -> None:
        self._split(blocks, np.full(len(blocks), END))

    # What a split changes.

    def apply(self) -> None:
        """Split what this window splits, once all nodes agree on it."""
        n = self._n
        for block, count in self._failing.items():
            bases = self._stopping(block)[:count]
            n.counters["thp_split_pmd"] += n.huge_pages.unmap(bases)
            n.counters["thp_split_page_failed"] += count
        self._split(*n.split_times.split())

    def _split(self, blocks: I64, positions: I64) -> None:
        if len(blocks) == 0:
            return
        self._trees.unstable.split_huge(blocks)
        first = blocks << HUGE_ORDER
        self._n.frames.split_huge(pfn_of(first[on_node(first, self._n.id)]))
        self._split_mappings(blocks)
        self._tell_zeroed(blocks, positions)

    def _split_mappings(self, blocks: I64) -> None:
        """Replace the mappings of huge pages by those of small ones."""
        n, table = self._n, self._n.table
        self._slots = slots = self._mapping(blocks)
        if len(slots) == 0:
            return
        of = block_of(table.pte[slots])
        # One slot of each run of pages that a process maps of a huge page.
        keys, _ = n.spaces.index.along(slots)
        runs = np.flatnonzero(changes(of) | changes(mm_of_key(keys)))
        of, keys, bases = of[runs], keys[runs], n.bases_of(slots[runs])
        split = np.unique(of)
        n.counters["thp_split_page"] += len(split)
        self._huge.defer(self._torn(of, keys, bases))
        n.counters["thp_split_pmd"] += n.huge_pages.unmap(np.unique(bases))
        n.huge_pages.deferred.difference_update(split.tolist())
        table.split_huge(slots)

    def _torn(self, blocks: I64, keys: ItemKeys, bases: Slots) -> set[int]:
        """Return huge pages that lose their last mappings one by one: those of the last process are PTEs."""
        order = np.lexsort((keys, blocks))
        last = order[np.flatnonzero(np.append(np.diff(blocks[order]) != 0, True))]
        return set(blocks[last[~self._n.huge_pages.by_pmd(bases[last])]].tolist())

    def _tell_zeroed(self, blocks: I64, positions: I64) -> None:
        """Tell the owners which frames of huge pages of this node hold zeros."""
        n = self._n
        if not n.profile.split_maps_zero_page:
            return
        rows = np.flatnonzero(node_of_frame(blocks << HUGE_ORDER) == n.id)
        frames = frames_of_blocks(blocks[rows]) & ~HUGE_FRAME
        pfns = pfn_of(frames)
        zero = np.flatnonzero(n.frames.content[pfns] == 0)
        zero = zero[n.frames.mapcount[pfns[zero]] > 0]
        if len(n.failed):
            zero = zero[~n.failed.among(frames[zero])]
        owners = n.frames.owner_nodes(pfns[zero])
        n.out.send(Kind.ZEROED, owners, frames[zero], positions[rows][zero >> HUGE_ORDER])

    def on_zeroed(self, frames: FrameWords, positions: I64) -> None:
        """Map the shared zero page in place of frames of zeros, in every process that maps them.

        ksmd finds nothing at pages that it reaches after the split; this undoes their visits.
        """
        n, table = self._n, self._n.table
        at = find_unsorted(frames, table.pte[self._slots])
        slots, when = self._slots[at >= 0], positions[at[at >= 0]]
        n.counters["thp_zero_pages"] += len(slots)
        keys, mergeable = n.spaces.index.along(slots)
        pos = n.position(keys)
        late = (pos > when) & (pos < n.window.high) & mergeable
        self._undo_visits(slots[late])
        self._faults.tell_gone(slots)
        self._faults.touched(slots[~late])
        self._faults.put(self._faults.unmap(slots, keep=INITIAL_FRAME))
        table.map_split_zero(slots)

    def _undo_visits(self, slots: Slots) -> None:
        """Undo visits to pages that ksmd does not find, and free their items."""
        n, table = self._n, self._n.table
        skipped = len(slots[table.ages.undo_visit(slots)]) if n.knobs.smart_scan else 0
        n.counters["pages_skipped"] -= skipped
        self.undone += len(slots) - skipped
        for name in ("pages_scanned", "checksums", "huge_checksums"):
            n.counters[name] -= len(slots) - skipped
        self._faults.leave_unstable_tree(slots)
        table.remove_from_trees(slots[(table.state[slots] & ITEM) != 0])
        table.free_items(slots)
