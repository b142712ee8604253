"""What one scan window does to some contents of one node's trees.

Most contents are simple, and `merge_plan` decides them all at once; what is left goes to `merge_odd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.columns import is_in, order_by, rows_where
from cluster.arrays.words import I64, U64, Bool, is_ksm_word, ksm_word
from cluster.ksm.decide.events import Events, Solved
from cluster.ksm.decide.plan import NOBODY, Problem, plan_regular, plan_stepwise
from cluster.ksm.decide.table_changes import Changes
from cluster.ksm.effects import Effects
from cluster.ksm.trees import Trees
from cluster.ksm.visit import CANDIDATES, Event
from cluster.wire.window import Window

if TYPE_CHECKING:
    from cluster.ksm.decide.sequential_tables import OneByOne


def _among(*kinds: Event) -> Bool:
    """By event, whether it is one of these."""
    return np.isin(np.arange(len(Event)), kinds)


#: Of pages whose checksum has changed.
_VOLATILE = _among(Event.STABLE_ONLY, Event.VOLATILE_SHARED)
_LOOKUP = _among(Event.CANDIDATE, Event.CANDIDATE_SHARED, Event.STABLE_ONLY)
#: Events that make a content's other events depend on their order in ways of their own.
_SPECIAL = _among(Event.CANDIDATE_SHARED, Event.STABLE_ONLY, Event.VOLATILE_SHARED)
#: Events that search for nothing.
_OTHER = _among(Event.LEAVE, Event.JOIN_OWN)
#: Events that only `merge_odd` understands.
_ODD = _among(*(event for event in Event if event >= Event.STABLE_OR_ZERO))

#: Contents with more events are not decided in lockstep.
_LONG = 32


class Decision:
    """Contents, ascending, and what arrived of them; effects are told, changes collected."""

    def __init__(
        self,
        trees: Trees,
        window: Window,
        effects: Effects,
        changes: Changes,
        digests: U64,
        arrivals: Events,
    ) -> None:
        self.trees = trees
        self.window = window
        self.effects = effects
        self.changes = changes
        self.active = digests
        #: Stable nodes that there are of them.
        self.node_group, self.node_row = trees.stable.rows(digests)
        #: The page of each content that is in the unstable tree when the window opens.
        self.waiting_row = np.full(len(digests), NOBODY)
        #: Contents of which the trees may keep something that is to be looked at again.
        self.unsettled = np.zeros(len(digests), np.bool_)
        self.unsettled[self.node_group] = True
        self.events = self._with_visits(arrivals)
        self.solved: list[Solved] = []

    def _with_visits(self, arrivals: Events) -> Events:
        """The events that arrived and the visits of pages that wait, in order."""
        trees, unstable, window = self.trees, self.trees.unstable, self.window
        which, row = unstable.rows(self.active)
        self.unsettled[which] = True
        dirty = trees.dirty(row)
        pos = trees.node.position(unstable["key"][row])
        before = np.where(dirty == 0, pos < window.low, dirty == window.pass_number)
        self.waiting_row[which[before][::-1]] = row[before][::-1]
        kinds = np.where(_shared(which, unstable["frame"][row]), Event.CANDIDATE_SHARED, Event.CANDIDATE)
        visited = (dirty == 0) & (pos >= window.low) & (pos < window.high)
        if not visited.any():
            return arrivals
        which, row, pos, kinds = which[visited], row[visited], pos[visited], kinds[visited]
        events = Events(
            np.concatenate([arrivals.group, which]),
            np.concatenate([arrivals.pos, pos]),
            np.concatenate([arrivals.key, unstable["key"][row]]),
            np.concatenate([arrivals.frame, unstable["frame"][row]]),
            np.concatenate([arrivals.kind, kinds.astype(np.uint8)]),
            np.concatenate([arrivals.row, row]),
        )
        return events.of(order_by(events.group.view(np.uint64), events.pos)[0])

    def carry_out(self) -> None:
        regular, stepwise, odd = self._sort_out()
        shape = self.trees.shape
        if shape is not None and (odd.any() or self._disturbed()):
            self._one_by_one().walk(shape, self.active, self.events)
        else:
            self._carry_out(regular, stepwise, odd)
        # Of what came new and was merged as far as it goes, no two pages wait, nor does one that could join.
        self.unsettled |= ~regular | (shape is not None)

    def _carry_out(self, regular: Bool, stepwise: Bool, odd: Bool) -> None:
        events = self.events
        counted = ~(regular | stepwise | odd)
        other = _OTHER[events.kind]
        self._count(events.where(counted[events.group] | (regular[events.group] & other)))
        self._solve(np.flatnonzero(regular), events.where(regular[events.group] & ~other), regular=True)
        self._solve(np.flatnonzero(stepwise), events.where(stepwise[events.group]), regular=False)
        if odd.any():
            self._one_by_one().decide(np.flatnonzero(odd), self.active, events, self.waiting_row)
        if self.trees.shape is not None:
            from cluster.ksm.decide.follow_shape import follow

            follow(self.trees.shape, self.solved, self.trees.unstable["key"])

    def _one_by_one(self) -> OneByOne:
        # Rarely needed; without it an actor starts sooner.
        from cluster.ksm.decide.sequential_tables import OneByOne

        return OneByOne(self.trees, self.window, self.effects, self.changes)

    def _disturbed(self) -> bool:
        """Whether searches may meet something that makes their way matter."""
        trees, stable = self.trees, self.trees.stable
        dirty = trees.unstable["dirty"] == self.window.pass_number
        odd = (stable["dup"] == 1) | (stable["dead"] == 1) | trees.node.away(stable["frame"])
        return bool(dirty.any() or odd.any()) or len(trees.empty_chains) + len(trees.migrating) > 0

    # Which content is decided how.

    def _sort_out(self) -> tuple[Bool, Bool, Bool]:
        """The contents to be decided at once, in lockstep, and one by one; the others have no searches."""
        trees, events, groups = self.trees, self.events, len(self.active)
        chains = trees.node.profile.chains

        def some(of: I64, chosen: Bool) -> Bool:
            flags = np.zeros(groups, np.bool_)
            flags[of[rows_where(chosen)]] = True
            return flags

        def any_of(kinds: Bool) -> Bool:
            return some(events.group, kinds[events.kind])

        lookup = any_of(_LOOKUP)
        special = any_of(_SPECIAL)
        other = any_of(_OTHER)
        stable = trees.stable
        which, row = self.node_group, self.node_row

        def any_node(chosen: Bool) -> Bool:
            return some(which, chosen)

        count = stable["count"][row]
        leaves = np.bincount(events.group[np.flatnonzero(events.kind == Event.LEAVE)], minlength=groups)
        joins = np.bincount(events.group, minlength=groups) - leaves
        full = any_node(count + joins[which] > trees.node.limit)
        emptied = any_node(count - leaves[which] <= 0) & chains
        nodes = np.bincount(which, minlength=groups)
        dup = any_node(stable["dup"][row] == 1)
        odd = any_of(_ODD) | any_node(trees.node.away(stable["frame"][row]))
        odd |= any_node(stable["dead"][row] == 1) & (lookup | dup)
        odd |= is_in(self.active, trees.migrating.digest)
        tangled = emptied | self._blocked() | (dup & (special | other)) | (other & (full | (nodes > 1)))
        tangled |= is_in(self.active, trees.empty_chains.digest)
        tangled |= dup & (nodes == 1) & (not trees.node.profile.collapse_always)
        long = joins + leaves > _LONG
        odd |= lookup & (tangled | (special & long))
        return lookup & ~special & ~odd, lookup & special & ~odd, odd

    def _blocked(self) -> Bool:
        """Contents whose page in the unstable tree cannot be merged."""
        blocked = np.zeros(len(self.active), np.bool_)
        some = np.flatnonzero(self.waiting_row >= 0)
        rows = self.waiting_row[some]
        in_the_way = self.trees.in_the_way(rows)
        blocked[some] = in_the_way | is_ksm_word(self.trees.unstable["frame"][rows])
        return blocked

    def _stable_rows(self) -> tuple[I64, I64]:
        """Content and row of the stable nodes, in the order in which searches take them."""
        stable, which, row = self.trees.stable, self.node_group, self.node_row
        fullness = np.zeros(len(row), np.int64)
        if self.window.prune:
            count = stable["count"][row]
            fullness = np.where(count < self.trees.node.limit, -count, 0)
        order = np.lexsort((stable["order"][row], fullness, which))
        return which[order], row[order]

    # At once, or in lockstep.

    def _count(self, events: Events) -> None:
        """Counts events that search for nothing, where their order among the searches does not matter."""
        stable = self.trees.stable
        if len(events.key) == 0:
            return
        rows = stable.find(self.active[events.group], "frame", events.frame)
        change = np.where(events.kind == Event.LEAVE, -1, 1)[rows >= 0]
        rows = rows[rows >= 0]
        np.add.at(stable["count"], rows, change.astype(np.int32))
        # A stable node whose frame was freed goes with the first item that is visited.
        dead = np.unique(rows[(stable["dead"][rows] == 1) & (change < 0)])
        self.effects.drop(stable["frame"][dead[stable["count"][dead] > 0]])
        self.changes.nodes_gone.append(dead)

    def _solve(self, groups: I64, events: Events, *, regular: bool) -> None:
        """Decides some of the contents; `events` are theirs."""
        if len(groups) == 0:
            return
        stable, trees = self.trees.stable, self.trees
        number = np.full(len(self.active), NOBODY)
        number[groups] = np.arange(len(groups))
        which, row = self._stable_rows()
        mine = rows_where(number[which] >= 0)
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
            node_count=stable["count"][row].astype(np.int64),
            waiting=waiting,
        )
        plan = plan_regular(problem) if regular else plan_stepwise(problem)
        solved = Solved(problem, plan, events, row, waiting_row, self.active[groups])
        self._reorder(solved)
        frames = np.concatenate([stable["frame"][row], self._insert_nodes(solved)])
        self.solved.append(solved)
        self._tell(solved, frames)
        self._update_waiting(solved)

    def _event_nodes(self, events: Events, row: I64) -> I64:
        """For LEAVE and JOIN_OWN the number of the stable node concerned."""
        stable = self.trees.stable
        nodes = np.full(len(events.key), NOBODY)
        named = np.flatnonzero(_OTHER[events.kind])
        rows = stable.find(self.active[events.group[named]], "frame", events.frame[named])
        if len(row):
            order = np.argsort(row)
            at = order[np.minimum(np.searchsorted(row, rows, sorter=order), len(row) - 1)]
            nodes[named] = np.where(rows >= 0, at, NOBODY)
        return nodes

    def _reorder(self, s: Solved) -> None:
        """Searches move dups that they find with room for two to the front of their chains."""
        stable, trees, problem = self.trees.stable, self.trees, s.problem
        old = len(s.row)
        joined = np.bincount(s.plan.target[s.plan.target >= 0], minlength=old)[:old] > 0
        roomy = problem.node_count < problem.limit - 1
        moved = np.flatnonzero(joined & roomy & (stable["dup"][s.row] == 1))
        trees.front -= len(moved)
        stable["order"][s.row[moved]] = trees.front + np.arange(len(moved))[::-1]
        if trees.node.profile.collapse_always:
            nodes = np.bincount(problem.node_group, minlength=problem.groups)
            stable["dup"][s.row[nodes[problem.node_group] == 1]] = 0

    def _insert_nodes(self, s: Solved) -> I64:
        """New stable nodes, in front of those of the same content; returns their frames."""
        stable, trees, problem, plan = self.trees.stable, self.trees, s.problem, s.plan
        old, new = len(s.row), len(plan.new_group)
        new_stable_pages = np.flatnonzero(plan.new_stable_page)
        frames = np.empty(new, np.int64)
        frames[plan.target[new_stable_pages] - old] = ksm_word(
            s.events.frame[new_stable_pages], self.window.seq
        )
        stable["count"][s.row] = plan.node_count[:old]
        nodes = np.bincount(np.concatenate([problem.node_group, plan.new_group]), minlength=problem.groups)
        founding = np.bincount(plan.new_group, minlength=problem.groups) > 0
        chained = founding & (nodes > 1)
        stable["dup"][s.row[chained[problem.node_group]]] = 1
        digests, dup = s.digests[plan.new_group], chained[plan.new_group]
        self.changes.found(trees, digests, frames, plan.node_count[old:], dup)
        return frames

    def _tell(self, s: Solved, frames: I64) -> None:
        """`frames` are those of the old stable nodes and the new ones."""
        plan, effects, keys = s.plan, self.effects, s.events.key
        new_stable_pages = np.flatnonzero(plan.new_stable_page)
        effects.found_nodes(keys[new_stable_pages], frames[plan.target[new_stable_pages]])
        own = np.flatnonzero(plan.own)
        effects.hang(keys[own], _VOLATILE[s.events.kind[own]].astype(np.uint8))
        merged = np.flatnonzero((plan.target >= 0) & ~plan.new_stable_page & ~plan.own)
        waited = np.flatnonzero(plan.waited_target >= 0)
        target = np.concatenate([plan.target[merged], plan.waited_target[waited]])
        effects.map(
            np.concatenate([keys[merged], self.trees.unstable["key"][s.waiting_row[waited]]]),
            frames[target],
        )
        count = np.bincount(target, minlength=len(frames))
        mapped = np.flatnonzero(count)
        effects.get(frames[mapped], count[mapped])

    def _update_waiting(self, s: Solved) -> None:
        plan, events = s.plan, s.events
        revisited = events.row >= 0
        self.changes.waits_gone.append(s.waiting_row[np.flatnonzero(plan.waited_target >= 0)])
        self.changes.waits_gone.append(events.row[np.flatnonzero(revisited & ~plan.waits)])
        searched = CANDIDATES[events.kind]
        loose = events.key[np.flatnonzero(searched & ~plan.waits & (plan.target < 0))]
        self.effects.loosen(loose, np.zeros(len(loose), np.uint8))
        new = np.flatnonzero(plan.waits & ~revisited)
        self.changes.wait(s.digests[s.problem.group[new]], events.key[new], events.frame[new])


def _shared(group: I64, frames: I64) -> Bool:
    """Which pages have their frame in common with another one of the same content."""
    shared = np.zeros(len(group), np.bool_)
    several = np.flatnonzero(np.bincount(group)[group] > 1) if len(group) else group
    _, which, times = np.unique(frames[several], return_inverse=True, return_counts=True)
    shared[several] = times[which] > 1
    return shared
