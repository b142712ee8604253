"""How pages of the same content merge, one after the other in scan order.

Each content is decided by itself. A page joins the first stable node of its content that has room; if there
is none, it meets the page that waits in the unstable tree, and the two become a new stable node with the
frame of the later one; if no page waits, it waits itself (stable_tree_search(), cmp_and_merge_page(),
unstable_tree_search_insert()).

`plan_regular` decides all contents at once in closed form. It holds where all visits are of candidates with
frames of their own. `plan_stepwise` takes any mixture of visits; it goes through the contents in lockstep,
the i-th visit of each at the same time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, U8, Bool, FrameWords
from cluster.ksm.visit import VisitKind

#: In place of a visit: the page that waited before the first one.
WAITED = -2
#: In place of a row, frame, visit or number of a stable node.
NONE = -1


class MergeProblem(NamedTuple):
    """The visits of some contents, and what the trees hold of them.

    Visits are sorted by content and, within it, by scan position; contents are numbered 0 .. groups-1. Stable
    nodes of a content are in the order in which a search tries them.
    """

    #: Most rmap_items a stable node takes (max_page_sharing).
    limit: int
    groups: int
    #: [visits]: content; VisitKind; frame; stable node concerned (LEAVE, APPEND), -1 if it is gone.
    group: I64
    kind: U8
    frame: FrameWords
    node: I64
    #: int64[nodes]: content; rmap_items.
    node_group: I64
    node_count: I64
    #: int64[groups]: frame of the page that waits in the unstable tree; -1 if none does.
    waiting: FrameWords


class MergePlan(NamedTuple):
    """What becomes of visits. Stable nodes are those of the problem, then the new ones."""

    #: int64[visits]: the stable node that the item is added to; -1 if none.
    target: I64
    #: bool[visits]: this page's frame becomes the new stable node `target`.
    new_stable_page: Bool
    #: bool[visits]: the page waits in the unstable tree now.
    waits: Bool
    #: bool[visits]: the page's frame, which it shared, has become the KSM frame of `target`.
    own: Bool
    #: int64[groups]: the stable node that the page which waited before was merged into; -1 if it was not.
    waited_target: I64
    #: int64[nodes and new nodes]: rmap_items; int64[new nodes]: content.
    node_count: I64
    new_group: I64


def group_starts(group: I64, groups: int) -> I64:
    """Return the first index of each group in a sorted array of group numbers. int64[groups]."""
    return np.searchsorted(group, np.arange(groups))


def plan_regular(p: MergeProblem) -> MergePlan:
    """Plan for CANDIDATE visits only, no two of a content with the same frame."""
    visits = np.bincount(p.group, minlength=p.groups)
    old = len(p.node_group)
    waited = (p.waiting >= 0).astype(np.int64)
    target = np.full(len(p.group), NONE)
    order = np.arange(len(p.group)) - np.repeat(np.cumsum(visits) - visits, visits)
    room_of_group = np.zeros(p.groups, np.int64)
    if old:
        room = np.maximum(p.limit - p.node_count, 0)
        room_of_group = np.bincount(p.node_group, room, p.groups).astype(np.int64)
        filled = np.cumsum(room)
        filled_before = np.concatenate([[0], filled])[group_starts(p.node_group, p.groups)]
        joins = np.flatnonzero(order < np.repeat(room_of_group, visits))
        target[joins] = np.searchsorted(filled, filled_before[p.group[joins]] + order[joins], "right")

    # The others, with the page that waited at their head, fall into blocks of `limit`: the first of a block
    # waits, the second makes a stable node with it, the rest join.
    line = np.maximum(visits - room_of_group, 0)
    line += np.where(line > 0, waited, 0)
    new_nodes = line // p.limit + (line % p.limit >= 2)
    first_new = old + np.cumsum(new_nodes) - new_nodes
    in_line = np.repeat(new_nodes > 0, visits) & (target < 0)
    rows = np.flatnonzero(in_line)
    group = p.group[rows]
    block, in_block = np.divmod(order[rows] + (waited - room_of_group)[group], p.limit)
    in_new = block < new_nodes[group]
    target[rows] = np.where(in_new, first_new[group] + block, NONE)
    new_stable_page = np.zeros(len(p.group), np.bool_)
    new_stable_page[rows] = in_new & (in_block == 1)

    waited_target = np.where((waited == 1) & (new_nodes > 0), first_new, NONE)
    count = _added(target, waited_target, old + int(new_nodes.sum()))
    count[:old] += p.node_count
    return MergePlan(
        target=target,
        new_stable_page=new_stable_page,
        waits=target < 0,
        own=np.zeros(len(p.group), np.bool_),
        waited_target=waited_target,
        node_count=count,
        new_group=np.repeat(np.arange(p.groups), new_nodes),
    )


def _added(target: I64, waited_target: I64, nodes: int) -> I64:
    """Count the items that are added to each stable node. int64[nodes]."""
    added = [targets[np.flatnonzero(targets >= 0)] for targets in (target, waited_target)]
    return np.bincount(np.concatenate(added), minlength=nodes)


def plan_stepwise(p: MergeProblem) -> MergePlan:
    """Plan for any visits."""
    return _Stepwise(p).run()


class _Stepwise:
    """Keeps for each content a run of places for stable nodes: new ones first, the newest foremost."""

    def __init__(self, p: MergeProblem) -> None:
        self.p = p
        lookups = np.isin(p.kind, (VisitKind.CANDIDATE, VisitKind.CANDIDATE_SHARED))
        new_places = np.bincount(p.group[lookups], minlength=p.groups) // 2 + 1
        old_places = np.bincount(p.node_group, minlength=p.groups)
        self.start = np.cumsum(new_places + old_places) - new_places - old_places
        first_old = self.start + new_places
        self.place_of_node = (
            first_old[p.node_group]
            + np.arange(len(p.node_group))
            - group_starts(p.node_group, p.groups)[p.node_group]
        )
        size = int((new_places + old_places).sum())
        self.count = np.full(size, p.limit)
        self.count[self.place_of_node] = p.node_count
        self.next_new = first_old - 1
        self.is_new = np.zeros(size, np.bool_)
        #: The frame that a new stable node took.
        self.origin = np.full(size, NONE)
        self.group_of_place = np.repeat(np.arange(p.groups), new_places + old_places)
        self.waiting_frame = p.waiting.copy()
        self.waiting = np.where(p.waiting >= 0, WAITED, NONE)
        self.target = np.full(len(p.group), NONE)
        self.new_stable_page = np.zeros(len(p.group), np.bool_)
        self.own = np.zeros(len(p.group), np.bool_)
        self.waited_target = np.full(p.groups, NONE)

    def run(self) -> MergePlan:
        p = self.p
        starts = group_starts(p.group, p.groups)
        length = np.bincount(p.group, minlength=p.groups)
        for step in range(int(length.max(initial=0))):
            self._visit(starts[length > step] + step)
        waits = np.zeros(len(p.group), np.bool_)
        waits[self.waiting[self.waiting >= 0]] = True
        return self._renumbered(waits)

    def _visit(self, visits: I64) -> None:
        """Take one visit of each of several contents."""
        p = self.p
        kind = p.kind[visits]
        known = visits[p.node[visits] >= 0]
        leaving = known[p.kind[known] == VisitKind.LEAVE]
        self.count[self.place_of_node[p.node[leaving]]] -= 1
        joining = known[p.kind[known] == VisitKind.APPEND]
        self.count[self.place_of_node[p.node[joining]]] += 1
        searching = visits[(kind != VisitKind.LEAVE) & (kind != VisitKind.APPEND)]
        searching = self._append_to_own(searching)
        lookups = searching[p.kind[searching] != VisitKind.VOLATILE_SHARED]
        if len(lookups) == 0:
            return
        place = self._first(self.count < p.limit)[p.group[lookups]]
        found = place >= 0
        self.target[lookups[found]] = place[found]
        self.count[place[found]] += 1
        rest = lookups[~found]
        self._unstable(rest[p.kind[rest] != VisitKind.STABLE_ONLY])

    def _append_to_own(self, visits: I64) -> I64:
        """Let pages whose frame has become a KSM frame join its stable node; return the others."""
        p = self.p
        frame = np.full(p.groups, WAITED)
        frame[p.group[visits]] = p.frame[visits]
        place = self._first(self.origin == frame[self.group_of_place])[p.group[visits]]
        own = place >= 0
        self.target[visits[own]] = place[own]
        self.count[place[own]] += 1
        self.own[visits[own]] = True
        return visits[~own]

    def _first(self, fit: Bool) -> I64:
        """Return the first place of each content that fits; -1 if there is none."""
        size = len(self.count)
        first = np.minimum.reduceat(np.where(fit, np.arange(size), size), self.start)
        return np.where(first < size, first, NONE)

    def _unstable(self, visits: I64) -> None:
        """Let pages merge with the page that waits, or wait (unstable_tree_search_insert())."""
        p = self.p
        group = p.group[visits]
        none = self.waiting[group] == NONE
        self.waiting[group[none]] = visits[none]
        self.waiting_frame[group[none]] = p.frame[visits[none]]
        pairs = ~none & (self.waiting_frame[group] != p.frame[visits])
        second, group = visits[pairs], group[pairs]
        place = self.next_new[group]
        self.next_new[group] -= 1
        self.count[place] = 2
        self.is_new[place] = True
        self.origin[place] = p.frame[second]
        self.target[second] = place
        self.new_stable_page[second] = True
        first = self.waiting[group]
        self.target[first[first >= 0]] = place[first >= 0]
        self.waited_target[group[first == WAITED]] = place[first == WAITED]
        self.waiting[group] = NONE

    def _renumbered(self, waits: Bool) -> MergePlan:
        """Number the places as stable nodes: old ones as in the problem, then new ones, oldest first."""
        p = self.p
        new = np.flatnonzero(self.is_new)
        group_of_new = np.searchsorted(self.start, new, "right") - 1
        new = new[np.lexsort((-new, group_of_new))]
        number = np.full(len(self.count) + 1, NONE)
        number[self.place_of_node] = np.arange(len(p.node_group))
        number[new] = len(p.node_group) + np.arange(len(new))
        return MergePlan(
            target=number[self.target],
            new_stable_page=self.new_stable_page,
            waits=waits,
            own=self.own,
            waited_target=number[self.waited_target],
            node_count=np.concatenate([self.count[self.place_of_node], self.count[new]]),
            new_group=np.sort(group_of_new),
        )
