"""Moving frames of processes to other nodes: off some of them, evenly, or nearer to those who map them.

The coordinator asks the nodes what they have, decides how many frames go from which node to which, and each
node chooses its own; `migrate.Migration` moves them, as it does for move_pages().
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    FRAME_BITS,
    I64,
    Bool,
    frame_word,
    is_ksm_word,
    node_of_frame,
    on_node,
    pfn_of,
)
from cluster.compaction.movable.movable_frames import MovableFrames
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import PRESENT
from cluster.numa.migrate_frames import Migration
from cluster.wire.messages import Kind

_NONE: I64 = np.zeros(0, np.int64)
#: Numbers in a matrix of frames and nodes.
_MOST_CELLS = 1 << 22


class NodeRelocation:
    """A node's part."""

    def __init__(self, node: NodeState, frames: MovableFrames, migration: Migration) -> None:
        self._n = node
        self._frames = frames
        self._migration = migration
        #: What nodes map of this node's frames: frame, node, how often.
        self._mapped: tuple[I64, I64, I64] = (_NONE, _NONE, _NONE)
        #: Frames that should move, and where to; those that gain most first.
        self._wishes: tuple[I64, I64] = (_NONE, _NONE)

    @property
    def moved_in(self) -> I64:
        """Frames that the last relocation brought, by the nodes from which. int64[nodes]."""
        return self._migration.moved_in

    def tell_mappings(self) -> None:
        """Tells other nodes which of their frames this node's processes map, and how often."""
        n, table = self._n, self._n.table
        self._mapped = (_NONE, _NONE, _NONE)
        mapped = table.pte[rows_with(table.state[: table.size], PRESENT)]
        frames, count = np.unique(mapped[(mapped >= 0) & ~on_node(mapped, n.id)], return_counts=True)
        n.out.send(Kind.MAPPED, node_of_frame(frames), frames, np.full(len(frames), n.id), count)

    def on_mapped(self, frames: I64, nodes: I64, count: I64) -> None:
        self._mapped = (frames, nodes, count)

    def wish(self, min_gain: int) -> dict[str, Any]:
        """Which frames should be elsewhere? Answer: `frames` int64[nodes], how many, and `free` ones here.

        Each frame's best node is that with the least sum of distances over its mappings, the lowest of
        several; it should move there if that makes the sum less by `min_gain` at least.
        """
        frames, which = np.unique(self._mapped[0], return_inverse=True)
        at_once = max(_MOST_CELLS // self._n.nodes, 1)
        parts = [
            self._best(frames[first : first + at_once], which - first)
            for first in range(0, len(frames), at_once)
        ]
        best, gain = (np.concatenate(column) for column in zip((_NONE, _NONE), *parts, strict=True))
        order = np.lexsort((frames, -gain))
        order = order[gain[order] >= min_gain]
        order = order[self._may_move(frames[order])]
        self._wishes = frames[order], best[order]
        wished = np.bincount(best[order], minlength=self._n.nodes)
        return {"frames": wished, "free": self._frames.free_count}

    def _best(self, frames: I64, row: I64) -> tuple[I64, I64]:
        """Best nodes of these frames, and what they gain there; `row` of each frame that is mapped."""
        n, (_, nodes, count) = self._n, self._mapped
        here = (row >= 0) & (row < len(frames))
        mappings = np.zeros((len(frames), n.nodes), np.int64)
        mappings[row[here], nodes[here]] = count[here]
        # all others are this node's own
        mappings[:, n.id] = self._frames.mapcount[pfn_of(frames)] - mappings.sum(axis=1)
        sums = mappings @ n.distance
        best = np.argmin(sums, axis=1)
        return best, sums[:, n.id] - np.take_along_axis(sums, best[:, None], axis=1)[:, 0]

    def _may_move(self, frames: I64) -> Bool:
        """With a tree for each node, a KSM frame stays with its tree."""
        may: Bool = np.full(len(frames), bool(self._n.knobs.merge_across_nodes)) | ~is_ksm_word(frames)
        return may

    def count(self) -> dict[str, Any]:
        """Answer: `frames` int64[3]: those in use, of them those that may move, and free ones."""
        used = self._named(self._frames.in_use())
        movable = np.count_nonzero(self._may_move(used))
        return {"frames": np.array([len(used), movable, self._frames.free_count])}

    def _named(self, pfns: I64) -> I64:
        return frame_word(self._n.id, pfns) | (self._frames.generation[pfns] << FRAME_BITS)

    def move(self, to: I64, number: int, *, wished: bool) -> None:
        """So many frames go to each node: those that wish it, or the lowest ones. int64[nodes]."""
        self._n.migration = number
        self._migration.moved_in = np.zeros(self._n.nodes, np.int64)
        if wished:
            frames, best = self._wishes
            self._wishes = (_NONE, _NONE)
        else:
            frames = self._named(self._frames.in_use())
            frames = frames[self._may_move(frames)][: to.sum()]
            best = np.repeat(np.arange(len(to)), to)[: len(frames)]
        going = _rank_within(best) < to[best]
        self._n.out.send(Kind.MIGRATE, self._n.id, frames[going], best[going])


def _rank_within(groups: I64) -> I64:
    """How many elements of the same group come before each. int64[n] -> int64[n]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty_like(groups)
    rank[order] = np.arange(len(groups)) - first
    return rank


def granted(wishes: I64, free: I64, most: int | None) -> I64:
    """How many frames may move, from row to column: as many as there is room for, lowest nodes first.

    wishes int64[nodes, nodes], free int64[nodes]; at most `most` in all.
    """
    pages: I64 = np.diff(np.minimum(np.cumsum(wishes, axis=0), free), axis=0, prepend=0)
    if most is not None:
        pages = np.diff(np.minimum(np.cumsum(pages), most), prepend=0).reshape(pages.shape)
    return pages
