"""The stable and unstable trees' entries for the contents whose home is one node.

With merge_across_nodes=1 the machine has one tree of each kind and every content a home; with 0 each node
has trees of its own for its own frames. The unstable tree is kept from pass to pass: which of its pages
ksmd has inserted in the current pass follows from the scan position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.mailbox import Kind
from cluster.merge_plan import NOBODY, Plan, Problem, plan_regular, plan_stepwise
from cluster.scan import Event
from cluster.sorted_table import SortedTable
from cluster.state import NodeState
from cluster.vma import positions
from cluster.window import Window
from cluster.words import I64, U8, U64, Bool, empty, ksm_word, node_of_frame, node_of_key


@dataclass(slots=True)
class Events:
    """Events of one window, sorted by content and scan position; `row` is that of a waiting page's visit."""

    group: I64
    key: I64
    frame: I64
    kind: U8
    row: I64

    def of(self, chosen: Bool | I64) -> Events:
        return Events(
            self.group[chosen], self.key[chosen], self.frame[chosen], self.kind[chosen], self.row[chosen]
        )


class Trees:
    def __init__(self, node: NodeState) -> None:
        self.node = node
        #: rmap_items of each stable node; dead: its frame has no mapping left.
        self.stable = SortedTable("frame", "count", "dead")
        self.unstable = SortedTable("key", "frame")
        self._arrived: list[tuple[U64, I64, I64, I64, U8]] = []
        self._recheck: U64 = empty(np.uint64)
        #: pages_shared and pages_sharing of this home's contents, by node of the KSM frame: int64[nodes].
        self.shared = np.zeros(node.nodes, np.int64)
        self.sharing = np.zeros(node.nodes, np.int64)

    @property
    def busy(self) -> bool:
        """Whether a window may change something here even if nothing arrives."""
        return len(self._recheck) > 0

    def on_event(self, digests: U64, pos: I64, keys: I64, frames: I64, kinds: U8) -> None:
        self._arrived.append((digests, pos, keys, frames, kinds))

    def on_withdraw(self, digests: U64, keys: I64) -> None:
        rows = self.unstable.find(digests, "key", keys)
        self.unstable.remove(rows[rows >= 0])

    def on_stale(self, digests: U64, frames: I64) -> None:
        rows = self.stable.find(digests, "frame", frames)
        rows = rows[rows >= 0]
        self.stable["dead"][rows] = 1
        self.stable.remove(rows[self.stable["count"][rows] == 0])

    def on_unhang(self, digests: U64, frames: I64) -> None:
        rows = self.stable.find(digests, "frame", frames)
        rows, times = np.unique(rows[rows >= 0], return_counts=True)
        old = self.stable["count"][rows]
        self.recount(self.stable["frame"][rows], old, old - times)
        self.stable["count"][rows] = old - times

    def chains(self) -> tuple[int, int]:
        """Contents with more than one stable node, and their stable nodes."""
        same = np.concatenate([[False], self.stable.digest[1:] == self.stable.digest[:-1], [False]])
        in_chain = same[:-1] | same[1:]
        return int(np.count_nonzero(in_chain & ~same[:-1])), int(np.count_nonzero(in_chain))

    # One window.

    def decide(self, window: Window) -> None:
        """Carries out the lookups that arrived, and tells the nodes of the pages."""
        arrived, self._arrived = self._arrived, []
        columns = [np.concatenate(c) for c in zip(*arrived, strict=True)] if arrived else None
        digests = columns[0] if columns else empty(np.uint64)
        active = np.unique(np.concatenate([digests, self._recheck]))
        if len(active) == 0:
            return
        which, row = self.unstable.rows(active)
        pos = positions(self.unstable["key"][row], self.node.rank_of(self.unstable["key"][row]))
        before = pos < window.low
        waiting_row = np.full(len(active), NOBODY)
        waiting_row[which[before][::-1]] = row[before][::-1]
        visited = ~before & (pos < window.high)
        events = self._events(active, columns, which[visited], row[visited], pos[visited])
        _Window(self, window, active, waiting_row, events).carry_out()

    def _events(self, active: U64, columns: list[I64] | None, which: I64, row: I64, pos: I64) -> Events:
        """The events that arrived and the visits of pages that wait, in order."""
        unstable = self.unstable
        revisits = Events(
            which,
            unstable["key"][row],
            unstable["frame"][row],
            np.full(len(row), Event.CANDIDATE_SHARED, np.uint8),
            row,
        )
        if columns is None:
            return revisits.of(np.lexsort((pos, which)))
        digests, arrived_pos, keys, frames, kinds = columns
        group = np.searchsorted(active, digests)
        events = Events(
            np.concatenate([group, revisits.group]),
            np.concatenate([keys, revisits.key]),
            np.concatenate([frames, revisits.frame]),
            np.concatenate([kinds.astype(np.uint8), revisits.kind]),
            np.concatenate([np.full(len(keys), NOBODY), revisits.row]),
        )
        return events.of(np.lexsort((np.concatenate([arrived_pos, pos]), events.group)))

    def recount(self, frames: I64, old: I64, new: I64) -> None:
        """Stable nodes with these frames have `new` instead of `old` rmap_items."""
        nodes = node_of_frame(frames)
        np.add.at(self.shared, nodes, (new > 0).astype(np.int64) - (old > 0))
        np.add.at(self.sharing, nodes, np.maximum(new - 1, 0) - np.maximum(old - 1, 0))

    def set_recheck(self, digests: U64) -> None:
        """These contents are looked at again in every window until they drop out."""
        self._recheck = digests


class _Window:
    """What one window does to the contents that are active in it."""

    def __init__(self, trees: Trees, window: Window, active: U64, waiting_row: I64, events: Events) -> None:
        self.trees = trees
        self.window = window
        self.active = active
        self.waiting_row = waiting_row
        self.events = events
        lookup = np.isin(events.kind, (Event.LEAVE, Event.JOIN_OWN), invert=True)
        self.lookup = lookup
        self.has_lookup = np.bincount(events.group[lookup], minlength=len(active)) > 0
        self.had_waiting = np.zeros(len(active), np.bool_)
        self.had_waiting[np.searchsorted(active, trees.unstable.digest[events.row[events.row >= 0]])] = True
        self.had_waiting[waiting_row >= 0] = True
        self.gone: list[I64] = []
        self.waits: list[tuple[U64, I64, I64]] = []
        self.new_nodes: list[tuple[U64, I64, I64]] = []

    def carry_out(self) -> None:
        self._drop_dead()
        which, row = self._stable_rows()
        stepwise = self._count_leaves_and_own_joins(which, row)
        by_step = stepwise[self.events.group]
        self._solve(np.flatnonzero(self.has_lookup & ~stepwise), self.events.of(self.lookup & ~by_step), True)
        self._solve(np.flatnonzero(stepwise), self.events.of(by_step), False)
        self._update_tables()
        self._update_recheck()

    def _drop_dead(self) -> None:
        """A search that meets a stable node whose frame is gone removes it with all its items."""
        stable, trees = self.trees.stable, self.trees
        which, row = stable.rows(self.active)
        dead = row[(stable["dead"][row] == 1) & self.has_lookup[which]]
        if len(dead) == 0:
            return
        frames, counts = stable["frame"][dead], stable["count"][dead]
        trees.recount(frames, counts, np.zeros_like(counts))
        nodes = trees.node.nodes
        trees.node.out.send(Kind.DROPPED, np.repeat(np.arange(nodes), len(frames)), np.tile(frames, nodes))
        stable.remove(dead)

    def _stable_rows(self) -> tuple[I64, I64]:
        """Content and row of the stable nodes, in the order in which a search tries them: fullest first."""
        stable = self.trees.stable
        which, row = stable.rows(self.active)
        limit = self.trees.node.limit
        count = np.where(stable["count"][row] < limit, stable["count"][row], -1)
        order = np.lexsort((-row, -count, which))
        return which[order], row[order]

    def _count_leaves_and_own_joins(self, which: I64, row: I64) -> Bool:
        """Counts events that search for nothing, where their order among the searches does not matter.

        Returns the contents that have to be decided step by step.
        """
        stable, events, groups = self.trees.stable, self.events, len(self.active)
        other = np.bincount(events.group[~self.lookup], minlength=groups) > 0
        shared = events.kind == Event.CANDIDATE_SHARED
        special = shared & (events.row == NOBODY) | (events.kind == Event.STABLE_ONLY)
        forked = np.bincount(events.group[special], minlength=groups) > 0
        nodes = np.bincount(which, minlength=groups)
        most = np.zeros(groups, np.int64)
        np.add.at(most, which, stable["count"][row])
        most += np.bincount(events.group[events.kind != Event.LEAVE], minlength=groups)
        ample = (nodes <= 1) & (most <= self.trees.node.limit)
        stepwise: Bool = self.has_lookup & (forked | (other & ~ample))
        counted = events.of(~self.lookup & ~stepwise[events.group])
        rows = stable.find(self.active[counted.group], "frame", counted.frame)
        change = np.where(counted.kind == Event.LEAVE, -1, 1)[rows >= 0]
        rows = rows[rows >= 0]
        touched = np.unique(rows)
        old = stable["count"][touched]
        np.add.at(stable["count"], rows, change)
        self.trees.recount(stable["frame"][touched], old, stable["count"][touched])
        self._gone_stable = touched[(stable["count"][touched] == 0) & (stable["dead"][touched] == 1)]
        return stepwise

    def _solve(self, groups: I64, events: Events, regular: bool) -> None:
        """Decides some of the contents; `events` are theirs."""
        if len(groups) == 0:
            return
        stable, trees = self.trees.stable, self.trees
        number = np.full(len(self.active), NOBODY)
        number[groups] = np.arange(len(groups))
        which, row = self._stable_rows()
        mine = number[which] >= 0
        which, row = which[mine], row[mine]
        waiting_row = self.waiting_row[groups]
        waiting = np.full(len(groups), NOBODY)
        some = waiting_row >= 0
        waiting[some] = trees.unstable["frame"][waiting_row[some]]
        problem = Problem(
            limit=trees.node.limit,
            groups=len(groups),
            group=number[events.group],
            kind=events.kind,
            frame=events.frame,
            node=self._event_nodes(events, row),
            node_group=number[which],
            node_count=stable["count"][row],
            waiting=waiting,
        )
        plan = plan_regular(problem) if regular else plan_stepwise(problem)
        self._apply(problem, plan, events, row, groups, waiting_row)

    def _event_nodes(self, events: Events, row: I64) -> I64:
        """For LEAVE and JOIN_OWN the number of the stable node concerned."""
        stable = self.trees.stable
        nodes = np.full(len(events.key), NOBODY)
        named = np.flatnonzero(np.isin(events.kind, (Event.LEAVE, Event.JOIN_OWN)))
        rows = stable.find(self.active[events.group[named]], "frame", events.frame[named])
        if len(row):
            order = np.argsort(row)
            at = order[np.minimum(np.searchsorted(row, rows, sorter=order), len(row) - 1)]
            nodes[named] = np.where(rows >= 0, at, NOBODY)
        return nodes

    def _apply(
        self, problem: Problem, plan: Plan, events: Events, row: I64, groups: I64, waiting_row: I64
    ) -> None:
        trees, stable, n = self.trees, self.trees.stable, self.trees.node
        old_nodes = len(row)
        founders = np.flatnonzero(plan.founder)
        new_frames = np.empty(len(plan.new_group), np.int64)
        new_frames[plan.target[founders] - old_nodes] = ksm_word(
            events.frame[founders], self.window.pass_number
        )
        frames = np.concatenate([stable["frame"][row], new_frames])
        digests = self.active[groups]
        trees.recount(stable["frame"][row], stable["count"][row], plan.node_count[:old_nodes])
        stable["count"][row] = plan.node_count[:old_nodes]
        new_digests, new_count = digests[plan.new_group], plan.node_count[old_nodes:]
        trees.recount(new_frames, np.zeros_like(new_count), new_count)
        self.new_nodes.append((new_digests, new_frames, new_count))
        n.out.send(Kind.MAKE_KSM, node_of_frame(new_frames), new_frames, new_digests)
        founded = frames[plan.target[founders]]
        keys = events.key[founders]
        n.out.send(Kind.STABLE, node_of_key(keys), keys, founded, digests[problem.group[founders]])

        merged = np.flatnonzero((plan.target >= 0) & ~plan.founder)
        waited = np.flatnonzero(plan.waited_target >= 0)
        keys = np.concatenate([events.key[merged], trees.unstable["key"][waiting_row[waited]]])
        into = np.concatenate([frames[plan.target[merged]], frames[plan.waited_target[waited]]])
        of = np.concatenate([problem.group[merged], waited])
        n.out.send(Kind.MERGE, node_of_key(keys), keys, into, digests[of])
        n.out.send(Kind.GET, node_of_frame(into), into)

        self.gone.append(waiting_row[waited])
        revisited = events.row[plan.target >= 0]
        self.gone.append(revisited[revisited >= 0])
        waits = np.flatnonzero(plan.waits & (events.row == NOBODY))
        wait_digests, keys = digests[problem.group[waits]], events.key[waits]
        self.waits.append((wait_digests, keys, events.frame[waits]))
        n.out.send(Kind.WAIT, node_of_key(keys), keys, wait_digests)

    def _update_tables(self) -> None:
        unstable, stable = self.trees.unstable, self.trees.stable
        stable.remove(self._gone_stable)
        unstable.remove(np.concatenate([empty(), *self.gone]))
        for digests, keys, frames in self.waits:
            unstable.insert(digests, key=keys, frame=frames)
        for digests, frames, counts in self.new_nodes:
            stable.insert(digests, frame=frames, count=counts, dead=np.zeros_like(counts))

    def _update_recheck(self) -> None:
        """Contents with a page that waits and something that it could merge with at its next visit."""
        stable, unstable = self.trees.stable, self.trees.unstable
        which, row = stable.rows(self.active)
        room = np.zeros(len(self.active), np.bool_)
        room[which[(stable["count"][row] < self.trees.node.limit) & (stable["dead"][row] == 0)]] = True
        waiting = np.bincount(unstable.rows(self.active)[0], minlength=len(self.active))
        self.trees.set_recheck(self.active[(waiting > 1) | ((waiting == 1) & room)])
