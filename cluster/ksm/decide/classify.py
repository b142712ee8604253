"""Which contents of a batch are decided at once, which in lockstep, and which one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import is_in, rows_where
from cluster.arrays.words import I64, Bool, is_huge_word, is_ksm_word
from cluster.ksm.decide.batch import ContentBatch
from cluster.ksm.visit import VisitKind

#: Contents with more visits are not decided in lockstep.
_LONG = 32


def kinds_table(*kinds: VisitKind) -> Bool:
    """Return bool[kind]: whether a kind is one of these."""
    return np.isin(np.arange(len(VisitKind)), kinds)


_LOOKUP = kinds_table(VisitKind.CANDIDATE, VisitKind.CANDIDATE_SHARED, VisitKind.STABLE_ONLY)
#: Visits that make the outcome of a content's other visits depend on their order in ways of their own.
_SPECIAL = kinds_table(VisitKind.CANDIDATE_SHARED, VisitKind.STABLE_ONLY, VisitKind.VOLATILE_SHARED)
#: Visits that search for nothing.
COUNT_ONLY = kinds_table(VisitKind.LEAVE, VisitKind.APPEND)
#: Visits that only `sequential` has rules for.
_SEQUENTIAL = kinds_table(*(kind for kind in VisitKind if kind >= VisitKind.STABLE_OR_ZERO))


class Routes(NamedTuple):
    """bool[groups] each: how contents are decided. Those on no route have no searches."""

    #: `plan_regular`.
    regular: Bool
    #: `plan_stepwise`.
    stepwise: Bool
    #: `sequential`.
    one_by_one: Bool


def classify(batch: ContentBatch) -> Routes:
    """Choose the quickest route that has rules for everything that happens to a content."""
    trees, visits, groups = batch.trees, batch.visits, len(batch.digests)
    stable, profile, limit = trees.stable, trees.node.profile, trees.node.limit
    which, row = batch.node_group, batch.node_row

    def some(of: I64, chosen: Bool) -> Bool:
        flags = np.zeros(groups, np.bool_)
        flags[of[rows_where(chosen)]] = True
        return flags

    def any_visit(kinds: Bool) -> Bool:
        return some(visits.group, kinds[visits.kind])

    lookup, special, count_only = any_visit(_LOOKUP), any_visit(_SPECIAL), any_visit(COUNT_ONLY)
    count = stable["count"][row]
    leaves = np.bincount(visits.group[np.flatnonzero(visits.kind == VisitKind.LEAVE)], minlength=groups)
    joins = np.bincount(visits.group, minlength=groups) - leaves
    full = some(which, count + joins[which] > limit)
    emptied = some(which, count - leaves[which] <= 0) & profile.chains
    nodes = np.bincount(which, minlength=groups)
    dup = some(which, stable["dup"][row] == 1)
    sequential = any_visit(_SEQUENTIAL) | some(which, trees.node.away(stable["frame"][row]))
    sequential |= some(which, stable["dead"][row] == 1) & (lookup | dup)
    sequential |= is_in(batch.digests, trees.migrating.digest)
    ordered = emptied | _blocked(batch) | (dup & (special | count_only)) | (count_only & (full | (nodes > 1)))
    ordered |= is_in(batch.digests, trees.empty_chains.digest)
    ordered |= dup & (nodes == 1) & (not profile.collapse_always)
    if batch.tries is not None:
        sequential |= is_in(batch.digests, batch.tries.routed) | _zeros_of_huge_pages(batch)
        sequential |= batch.lost_row >= 0
    long = joins + leaves > _LONG
    sequential |= lookup & (ordered | (special & long))
    return Routes(lookup & ~special & ~sequential, lookup & special & ~sequential, sequential)


def _zeros_of_huge_pages(batch: ContentBatch) -> Bool:
    """Return whether a content is that of zeros, and a page of a huge page has it: bool[groups]."""
    zero: Bool = batch.digests == 0
    if zero.any():
        group = int(np.argmax(zero))
        frames = batch.visits.frame[batch.visits.group == group]
        row = batch.waiting_row[group : group + 1]
        waiting = batch.trees.unstable["frame"][row[row >= 0]]
        zero[group] = is_huge_word(np.concatenate([frames, waiting])).any()
    return zero


def _blocked(batch: ContentBatch) -> Bool:
    """Contents whose page in the unstable tree cannot be merged."""
    unstable = batch.trees.unstable
    blocked = np.zeros(len(batch.digests), np.bool_)
    some = np.flatnonzero(batch.waiting_row >= 0)
    rows = batch.waiting_row[some]
    blocked[some] = unstable.blocks_search(rows) | is_ksm_word(unstable["frame"][rows])
    return blocked


def searches_meet_something(batch: ContentBatch) -> bool:
    """Return whether searches may meet something that makes the shape of a tree matter."""
    trees, stable = batch.trees, batch.trees.stable
    dirty = trees.unstable["dirty"] == batch.window.pass_number
    if batch.tries is not None:
        dirty = dirty | is_huge_word(trees.unstable["frame"])
        if is_huge_word(batch.visits.frame).any():
            return True
    changing = (stable["dup"] == 1) | (stable["dead"] == 1) | trees.node.away(stable["frame"])
    return bool(dirty.any() or changing.any()) or len(trees.empty_chains) + len(trees.migrating) > 0
