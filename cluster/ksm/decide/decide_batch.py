"""What one window does to the contents of a batch: `plan` decides most of them, `sequential` the rest."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import distinct, rows_where
from cluster.arrays.words import I64, Bool, FrameWords
from cluster.ksm.decide.batch import ContentBatch
from cluster.ksm.decide.classify import COUNT_ONLY, Routes, classify, searches_meet_something
from cluster.ksm.decide.plan import NONE, MergeProblem, plan_regular, plan_stepwise
from cluster.ksm.decide.plan_changes import ChosenContents, PlannedContents, add_plan
from cluster.ksm.decide.sorted_visits import SortedVisits
from cluster.ksm.page_updates import PageUpdates
from cluster.ksm.table_changes import TableChanges
from cluster.ksm.visit import VisitKind


def decide_batch(batch: ContentBatch, changes: TableChanges, updates: PageUpdates) -> None:
    """Decide the contents of a batch; add what follows to the changes and the messages."""
    shape = changes.shape
    if shape is None:
        batch = _without_repeated(batch, updates)
    routes = classify(batch)
    if shape is not None and (routes.one_by_one.any() or searches_meet_something(batch)):
        # Rarely needed; without it an actor starts sooner.
        from cluster.ksm.decide.sequential_tables import OneByOne

        OneByOne(batch, changes, updates).walk(shape)
    else:
        _decide_by_route(batch, routes, changes, updates)
    # Where new contents merged as far as they go, no two pages wait, nor one that could join a stable node.
    unsettled = batch.known | ~routes.regular | (shape is not None)
    changes.unsettled.append(batch.digests[np.flatnonzero(unsettled)])


def _without_repeated(batch: ContentBatch, updates: PageUpdates) -> ContentBatch:
    """Leave out pages with fixed frames behind another one of the same content; they go into no tree.

    The first of a row is inserted, or meets what it cannot merge with; the others meet one or the other.
    """
    visits = batch.visits
    fixed = visits.kind == VisitKind.CANDIDATE_FIXED
    if not fixed.any():
        return batch
    repeated = np.zeros(len(fixed), np.bool_)
    repeated[1:] = fixed[1:] & fixed[:-1] & (visits.group[1:] == visits.group[:-1]) & (visits.row[1:] < 0)
    keys = visits.key[np.flatnonzero(repeated)]
    updates.remove_from_trees(keys, np.zeros(len(keys), np.uint8))
    return batch._replace(visits=visits.where(~repeated))


def _decide_by_route(
    batch: ContentBatch, routes: Routes, changes: TableChanges, updates: PageUpdates
) -> None:
    visits, group = batch.visits, batch.visits.group
    regular, stepwise, one_by_one = routes
    count_only = COUNT_ONLY[visits.kind]
    no_search = ~(regular | stepwise | one_by_one)
    counted = visits.where(no_search[group] | (regular[group] & count_only))
    count = apply_item_changes(batch, counted, changes, updates)
    planned: list[PlannedContents] = []
    if regular.any():
        some = _chosen(batch, count, regular, visits.where(regular[group] & ~count_only))
        planned.append(PlannedContents(some, plan_regular(some.problem)))
    if stepwise.any():
        some = _chosen(batch, count, stepwise, visits.where(stepwise[group]))
        planned.append(PlannedContents(some, plan_stepwise(some.problem)))
    for part in planned:
        add_plan(part, batch, changes, updates)
    if one_by_one.any():
        from cluster.ksm.decide.sequential_tables import OneByOne

        OneByOne(batch, changes, updates).decide(np.flatnonzero(one_by_one))
    if changes.shape is not None:
        from cluster.ksm.decide.follow_shape import follow

        follow(changes.shape, planned, batch.trees.unstable["key"])


def apply_item_changes(
    batch: ContentBatch, visits: SortedVisits, changes: TableChanges, updates: PageUpdates
) -> I64:
    """Add to the changes what LEAVE and APPEND do to stable nodes; return their numbers of items then.

    The order of these visits among the searches must not matter. A dead stable node goes with the first item
    that leaves; all nodes are told (DROPPED).
    """
    stable = batch.trees.stable
    count: I64 = stable["count"][batch.node_row]
    if len(visits.key) == 0:
        return count
    at = _node_index(batch, visits.group, visits.frame)
    known = at >= 0
    change = np.where(visits.kind == VisitKind.LEAVE, -1, 1)[known]
    at = at[known]
    np.add.at(count, at, change.astype(np.int32))
    touched = distinct(at)
    changes.set_stable("count", batch.node_row[touched], count[touched])
    leaving = np.flatnonzero((stable["dead"][batch.node_row[at]] == 1) & (change < 0))
    dead, first = np.unique(at[leaving], return_index=True)
    rest = count[dead] > 0
    positions = None
    if batch.trees.node.leaving_ends_age:
        positions = visits.pos[known][leaving[first[rest]]]
    updates.drop_nodes(stable["frame"][batch.node_row[dead[rest]]], positions)
    changes.stable_gone.append(batch.node_row[dead])
    return count


def _node_index(batch: ContentBatch, group: I64, frame: FrameWords) -> I64:
    """Return the index in `batch.node_row` of the stable nodes of contents with these frames; -1 for none."""
    rows = batch.trees.stable.find(batch.digests[group], "frame", frame)
    return np.where(rows >= 0, np.searchsorted(batch.node_row, rows), NONE)


def _chosen(batch: ContentBatch, count: I64, chosen: Bool, visits: SortedVisits) -> ChosenContents:
    """Return the problem of some contents, whose stable nodes have `count` items; `visits` are theirs."""
    unstable = batch.trees.unstable
    groups = np.flatnonzero(chosen)
    number = np.full(len(batch.digests), NONE)
    number[groups] = np.arange(len(groups))
    node = dups_in_search_order(batch, count)
    node = node[rows_where(number[batch.node_group[node]] >= 0)]
    waiting_row = batch.waiting_row[groups]
    waiting = np.full(len(groups), NONE)
    some = waiting_row >= 0
    waiting[some] = unstable["frame"][waiting_row[some]]
    problem = MergeProblem(
        limit=batch.trees.node.limit,
        groups=len(groups),
        group=number[visits.group],
        kind=visits.kind,
        frame=visits.frame,
        node=_counted_nodes(batch, visits, node),
        node_group=number[batch.node_group[node]],
        node_count=count[node].astype(np.int64),
        waiting=waiting,
    )
    return ChosenContents(problem, visits, batch.node_row[node], waiting_row, batch.digests[groups])


def dups_in_search_order(batch: ContentBatch, count: I64) -> I64:
    """Return indices of `batch.node_row`, by content, in the order in which searches try its dups.

    A search takes the first dup with room; one that prunes chains takes the fullest with room
    (stable_node_dup()). `count` are their items.
    """
    fullness = np.zeros(len(count), np.int64)
    if batch.window.prune:
        fullness = np.where(count < batch.trees.node.limit, -count, 0)
    return np.lexsort((batch.trees.stable["order"][batch.node_row], fullness, batch.node_group))


def _counted_nodes(batch: ContentBatch, visits: SortedVisits, node: I64) -> I64:
    """Return for LEAVE and APPEND the index in `node` of the stable node concerned, for other visits -1."""
    nodes = np.full(len(visits.key), NONE)
    named = np.flatnonzero(COUNT_ONLY[visits.kind])
    if len(named):
        place = np.full(len(batch.node_row) + 1, NONE)
        place[node] = np.arange(len(node))
        nodes[named] = place[_node_index(batch, visits.group[named], visits.frame[named])]
    return nodes
