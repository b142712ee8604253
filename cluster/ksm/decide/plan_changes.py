"""What a plan changes in the tables, and what it tells nodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, Digests, FrameWords, block_of, is_huge_word, ksm_word
from cluster.ksm.decide.batch import ContentBatch
from cluster.ksm.decide.classify import kinds_table
from cluster.ksm.decide.plan import MergePlan, MergeProblem
from cluster.ksm.decide.sorted_visits import SortedVisits
from cluster.ksm.decide.split_tries import SplitTries
from cluster.ksm.page_updates import PageUpdates
from cluster.ksm.table_changes import TableChanges
from cluster.ksm.trees import Trees
from cluster.ksm.visit import CANDIDATES, VisitKind
from cluster.wire.window import Window

#: Visits to pages whose checksum has changed.
_VOLATILE = kinds_table(VisitKind.STABLE_ONLY, VisitKind.VOLATILE_SHARED)


class ChosenContents(NamedTuple):
    """Some contents of a batch as a problem, and where the tables have them."""

    problem: MergeProblem
    visits: SortedVisits
    #: int64[nodes]: rows of the stable nodes.
    row: I64
    #: int64[groups]: row of the page that waits, or -1; uint64[groups].
    waiting_row: I64
    digests: Digests


class PlannedContents(NamedTuple):
    """Contents, and what becomes of them."""

    contents: ChosenContents
    plan: MergePlan


def add_plan(
    planned: PlannedContents,
    batch: ContentBatch,
    changes: TableChanges,
    updates: PageUpdates,
) -> None:
    """Add what follows from a plan to the changes of a window, to the messages and to the tries of splits."""
    contents, plan = planned
    trees, window = batch.trees, batch.window
    if batch.tries is not None:
        _add_tries(contents, plan, trees, batch.tries)
    _move_to_front(contents, plan, trees, changes)
    frames = np.concatenate(
        [trees.stable["frame"][contents.row], _add_nodes(contents, plan, trees, window, changes)]
    )
    _tell(contents, plan, frames, trees, updates)
    _update_unstable(contents, plan, changes, updates)


def _add_tries(contents: ChosenContents, plan: MergePlan, trees: Trees, tries: SplitTries) -> None:
    """Add the tries of pages that merge; the page that waited is split by the visit that merges with it."""
    visits, group = contents.visits, contents.problem.group
    if not (is_huge_word(visits.frame).any() or is_huge_word(contents.problem.waiting).any()):
        return
    merges = (plan.target >= 0) & ~plan.own
    new = np.flatnonzero(plan.target >= len(contents.row))
    first = new[np.unique(plan.target[new], return_index=True)[1]]
    second = np.flatnonzero(plan.new_stable_page)
    second = second[np.argsort(plan.target[second])]
    # The first visit of a new stable node is that of the page which waited, unless it had waited before.
    here = first != second
    merges[first[here]] = False
    waited = contents.waiting_row[group[second]]
    frames = np.where(here, visits.frame[first], contents.problem.waiting[group[second]])
    keys = visits.key[first]
    keys[~here] = trees.unstable["key"][waited[~here]]
    partners = np.full(len(group), -1)
    partners[second] = frames
    rows = np.flatnonzero(merges)
    rows = rows[tries.candidates(visits.frame[rows], visits.pos[rows])]
    digests = contents.digests[group]
    tries.add_planned(visits.frame[rows], visits.key[rows], visits.pos[rows], digests[rows], partners[rows])
    apart = np.flatnonzero(block_of(frames) != block_of(visits.frame[second]))
    apart = apart[tries.candidates(frames[apart], visits.pos[second[apart]])]
    frames, keys, second = frames[apart], keys[apart], second[apart]
    tries.add_planned(frames, keys, visits.pos[second], digests[second], np.full(len(apart), -1))


def _move_to_front(contents: ChosenContents, plan: MergePlan, trees: Trees, changes: TableChanges) -> None:
    """Move dups that searches find with room for two to the front of their chains; collapse chains of one."""
    problem, row = contents.problem, contents.row
    old, dup = len(row), trees.stable["dup"][row] == 1
    joined = np.bincount(plan.target[plan.target >= 0], minlength=old)[:old] > 0
    has_space = problem.node_count < problem.limit - 1
    moved = np.flatnonzero(joined & has_space & dup)
    order = changes.take_front(len(moved)) + np.arange(len(moved))[::-1]
    changes.set_stable("order", row[moved], order)
    if trees.node.profile.collapse_always:
        nodes = np.bincount(problem.node_group, minlength=problem.groups)
        collapsed = np.flatnonzero(dup & (nodes[problem.node_group] == 1))
        changes.set_stable("dup", row[collapsed], np.zeros(len(collapsed), np.int8))


def _add_nodes(
    contents: ChosenContents, plan: MergePlan, trees: Trees, window: Window, changes: TableChanges
) -> FrameWords:
    """Add new stable nodes, in front of those of the same content; return their frames."""
    problem, row = contents.problem, contents.row
    old, new = len(row), len(plan.new_group)
    new_stable_pages = np.flatnonzero(plan.new_stable_page)
    frames = np.empty(new, np.int64)
    frames[plan.target[new_stable_pages] - old] = ksm_word(
        contents.visits.frame[new_stable_pages], window.seq
    )
    recounted = np.flatnonzero(plan.node_count[:old] != problem.node_count)
    changes.set_stable("count", row[recounted], plan.node_count[recounted])
    nodes = np.bincount(np.concatenate([problem.node_group, plan.new_group]), minlength=problem.groups)
    chained = (np.bincount(plan.new_group, minlength=problem.groups) > 0) & (nodes > 1)
    chained_row = row[np.flatnonzero(chained[problem.node_group])]
    changes.set_stable("dup", chained_row, np.ones(len(chained_row), np.int8))
    digests, dup = contents.digests[plan.new_group], chained[plan.new_group]
    changes.add_stable(digests, frames, plan.node_count[old:], dup)
    return frames


def _tell(
    contents: ChosenContents, plan: MergePlan, frames: FrameWords, trees: Trees, updates: PageUpdates
) -> None:
    """Add the messages about pages on stable nodes; `frames` are those of the old nodes and the new ones."""
    keys, kinds = contents.visits.key, contents.visits.kind
    new_stable_pages = np.flatnonzero(plan.new_stable_page)
    updates.make_stable(keys[new_stable_pages], frames[plan.target[new_stable_pages]])
    own = np.flatnonzero(plan.own)
    updates.add_to_stable(keys[own], _VOLATILE[kinds[own]].astype(np.uint8))
    merged = np.flatnonzero((plan.target >= 0) & ~plan.new_stable_page & ~plan.own)
    waited = np.flatnonzero(plan.waited_target >= 0)
    target = np.concatenate([plan.target[merged], plan.waited_target[waited]])
    waited_keys = trees.unstable["key"][contents.waiting_row[waited]]
    updates.merge(np.concatenate([keys[merged], waited_keys]), frames[target])
    count = np.bincount(target, minlength=len(frames))
    mapped = np.flatnonzero(count)
    updates.add_mappings(frames[mapped], count[mapped])


def _update_unstable(
    contents: ChosenContents, plan: MergePlan, changes: TableChanges, updates: PageUpdates
) -> None:
    """Remove pages that merged from the unstable tree, and insert those that wait."""
    visits, problem = contents.visits, contents.problem
    revisited = visits.row >= 0
    changes.unstable_gone.append(contents.waiting_row[np.flatnonzero(plan.waited_target >= 0)])
    changes.unstable_gone.append(visits.row[np.flatnonzero(revisited & ~plan.waits)])
    in_no_tree = CANDIDATES[visits.kind] & ~plan.waits & (plan.target < 0)
    keys = visits.key[np.flatnonzero(in_no_tree)]
    updates.remove_from_trees(keys, np.zeros(len(keys), np.uint8))
    new = np.flatnonzero(plan.waits & ~revisited)
    changes.add_unstable(contents.digests[problem.group[new]], visits.key[new], visits.frame[new])
