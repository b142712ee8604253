"""What a decision starts from: some contents, the tables' rows of them, and the visits to their pages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import order_by, rows_where
from cluster.arrays.words import I64, Bool, Digests, FrameWords, is_ksm_word
from cluster.ksm.decide.plan import NONE
from cluster.ksm.decide.sorted_visits import SortedVisits
from cluster.ksm.decide.split_tries import SplitTries
from cluster.ksm.trees import Trees
from cluster.ksm.visit import VisitKind
from cluster.wire.mailbox import joined
from cluster.wire.window import Window


class ContentBatch(NamedTuple):
    """Contents and their visits in one window. Nothing of it changes while it is decided."""

    trees: Trees
    window: Window
    #: uint64[groups], ascending.
    digests: Digests
    visits: SortedVisits
    #: int64[nodes]: content and row of its stable nodes; rows ascend.
    node_group: I64
    node_row: I64
    #: int64[groups]: row of the page that is in the unstable tree when the window opens; -1 if none is.
    waiting_row: I64
    #: int64[groups]: row in `UnstableTable.lost` of a page that a split may take away; -1 if there is none.
    lost_row: I64
    #: bool[groups]: whether the trees have stable nodes or unstable pages of the content.
    known: Bool
    #: For tries to split huge pages; None if there are none.
    tries: SplitTries | None


def gather(
    trees: Trees,
    window: Window,
    digests: Digests,
    arrivals: SortedVisits,
    tries: SplitTries | None = None,
) -> ContentBatch:
    """Return the batch of these contents, `arrivals` being the visits that nodes have sent."""
    unstable = trees.unstable
    node_group, node_row = trees.stable.rows(digests)
    which, row = unstable.rows(digests)
    known = np.zeros(len(digests), np.bool_)
    known[node_group] = True
    known[which] = True
    dirty = unstable.dirty_pass(row)
    pos = trees.node.position(unstable["key"][row])
    before = np.where(dirty == 0, pos < window.low, dirty == window.pass_number)
    waiting_row = np.full(len(digests), NONE)
    waiting_row[which[before][::-1]] = row[before][::-1]
    visited = (dirty == 0) & (pos >= window.low) & (pos < window.high)
    visits = arrivals
    if visited.any():
        shared = _shared(which, unstable["frame"][row])[visited]
        visits = _with_unstable(trees, arrivals, which[visited], row[visited], pos[visited], shared)
    lost_row = np.full(len(digests), NONE) if tries is None else unstable.lost_zeros(digests)
    return ContentBatch(
        trees, window, digests, visits, node_group, node_row, waiting_row, lost_row, known, tries
    )


def _with_unstable(
    trees: Trees, arrivals: SortedVisits, group: I64, row: I64, pos: I64, shared: Bool
) -> SortedVisits:
    """Add visits to pages of the unstable tree, which nodes do not send, to those that arrived."""
    unstable = trees.unstable
    kinds = np.where(shared, VisitKind.CANDIDATE_SHARED, VisitKind.CANDIDATE).astype(np.uint8)
    kinds[rows_where(is_ksm_word(unstable["frame"][row]))] = VisitKind.CANDIDATE_FIXED
    kept = SortedVisits(group, pos, unstable["key"][row], unstable["frame"][row], kinds, row)
    visits = SortedVisits._make(joined([arrivals, kept]))
    return visits.of(order_by(visits.group.view(np.uint64), visits.pos)[0])


def _shared(group: I64, frames: FrameWords) -> Bool:
    """Return which pages have their frame in common with another one of the same content."""
    shared = np.zeros(len(group), np.bool_)
    several = np.flatnonzero(np.bincount(group)[group] > 1) if len(group) else group
    _, which, times = np.unique(frames[several], return_inverse=True, return_counts=True)
    shared[several] = times[which] > 1
    return shared
