"""Relocation of processes' frames: off some nodes, evenly over nodes, or nearer to the nodes that map them.

The coordinator asks the nodes for their counts and decides how many frames move from each node to each other.
Then each node chooses frames, which move as those of move_pages() do (`migrate_frames`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    HUGE_ORDER,
    HUGE_SIZE,
    I64,
    Bool,
    FrameWords,
    Pfns,
    block_of,
    is_huge_word,
    is_ksm_word,
    node_of_frame,
    on_node,
    pfn_of,
)
from cluster.compaction.internode.drain import CANNOT_MOVE, DRIVERS_STAY, UNFOUND
from cluster.compaction.movable.counting import UNMOVABLE, PagesInUse, pages_in_use
from cluster.compaction.movable.movable_frames import KSM_PAGES, MovableFrames
from cluster.compaction.pages.page_map import pages_of_blocks
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import PRESENT
from cluster.numa.migrate_frames import FrameMigration
from cluster.wire.commands import (
    CountFrames,
    CountStayed,
    FindPreferredNodes,
    FrameCounts,
    HugeSplit,
    MoveFrames,
    PagesStayed,
    PreferredNodes,
    SplitHuge,
)
from cluster.wire.messages import Kind

_NONE: I64 = np.zeros(0, np.int64)
#: Largest size of a matrix of frames and nodes.
_MOST_CELLS = 1 << 22


class NodeRelocation:
    """One node's part in relocations."""

    def __init__(
        self, node: NodeState, frames: MovableFrames, migration: FrameMigration, owners: Mapping[str, int]
    ) -> None:
        self._n = node
        self._frames = frames
        self._migration = migration
        #: Numbers of the owners of pages in `frames.memory`, by name.
        self._owners = owners
        #: Frames that the last `move` asked to move.
        self._going: FrameWords = _NONE
        #: Mappings of this node's frames on other nodes: frame, node, count.
        self._mapped: tuple[FrameWords, I64, I64] = (_NONE, _NONE, _NONE)
        #: Frames that prefer another node, and that node; the frames that gain most come first.
        self._preferred: tuple[FrameWords, I64] = (_NONE, _NONE)

    def tell_mappings(self) -> None:
        """Tell other nodes which of their frames this node's processes map, and how often."""
        n, table = self._n, self._n.table
        self._mapped = (_NONE, _NONE, _NONE)
        mapped = table.pte[rows_with(table.state[: table.size], PRESENT)]
        frames, count = np.unique(mapped[(mapped >= 0) & ~on_node(mapped, n.id)], return_counts=True)
        n.out.send(Kind.MAPPED, node_of_frame(frames), frames, np.full(len(frames), n.id), count)

    def on_mapped(self, frames: FrameWords, nodes: I64, count: I64) -> None:
        self._mapped = (frames, nodes, count)

    def find_preferred(self, command: FindPreferredNodes) -> PreferredNodes:
        """Find the frames that prefer another node, and keep them for `move`; return how many they are.

        A frame's best node has the least sum of distances over its mappings; of several, the lowest. The
        frame prefers it if the sum falls by at least `min_gain`.
        """
        frames, which = np.unique(self._mapped[0], return_inverse=True)
        at_once = max(_MOST_CELLS // self._n.nodes, 1)
        parts = [
            self._best(frames[first : first + at_once], which - first)
            for first in range(0, len(frames), at_once)
        ]
        best, gain = (np.concatenate(column) for column in zip((_NONE, _NONE), *parts, strict=True))
        _join_huge_pages(frames, gain)
        order = np.lexsort((frames, -gain))
        order = order[gain[order] >= command.min_gain]
        order = order[self._may_move(frames[order], draining=False)]
        self._preferred = frames[order], best[order]
        counts = np.bincount(best[order], minlength=self._n.nodes)
        return PreferredNodes(counts, self._frames.free_count)

    def _best(self, frames: FrameWords, row: I64) -> tuple[I64, I64]:
        """Return the best nodes of these frames, and the gain there; `row` is the frame of each mapping."""
        n, (_, nodes, count) = self._n, self._mapped
        here = (row >= 0) & (row < len(frames))
        mappings = np.zeros((len(frames), n.nodes), np.int64)
        mappings[row[here], nodes[here]] = count[here]
        # All other mappings are this node's own.
        mappings[:, n.id] = self._frames.mapcount[pfn_of(frames)] - mappings.sum(axis=1)
        sums = mappings @ n.distance
        best = np.argmin(sums, axis=1)
        return best, sums[:, n.id] - np.take_along_axis(sums, best[:, None], axis=1)[:, 0]

    def _may_move(self, frames: FrameWords, *, draining: bool) -> Bool:
        """Return which frames may move.

        Pinned frames stay, and all frames of huge pages with one. Offlining moves every KSM frame. Otherwise,
        with one tree a node, it stays there.
        """
        pins = self._frames.pins[pfn_of(frames)].astype(np.int64)
        _join_huge_pages(frames, pins)
        may: Bool = pins == 0
        if draining or self._n.knobs.merge_across_nodes:
            return may
        return may & ~is_ksm_word(frames)

    def count(self, command: CountFrames) -> FrameCounts:
        """Return how many frames are in use, may move, and are free."""
        used, movable = len(self._frames.in_use()), len(self._single(draining=command.draining))
        huge = len(self._whole_huge_pages())
        return FrameCounts(used, movable, self._frames.free_count, huge, self._frames.free_huge)

    def _single(self, *, draining: bool) -> FrameWords:
        """Return the frames that may move one by one; a drain splits huge pages for that."""
        frames = self._frames.words(self._n.id, self._frames.in_use())
        may = self._may_move(frames, draining=draining)
        return frames[may if draining else may & ~is_huge_word(frames)]

    def _whole_huge_pages(self) -> Pfns:
        """Return the first frames of huge pages that may move as a whole: all mapped, and none pinned."""
        frames = self._frames
        blocks = np.flatnonzero(frames.memory.pages.huge)
        pfns = pages_of_blocks(blocks)
        may = (frames.mapcount[pfns] > 0) & (frames.pins[pfns] == 0)
        whole: Pfns = blocks[may.reshape(-1, HUGE_SIZE).all(axis=1)]
        return whole << HUGE_ORDER

    def split_huge(self, command: SplitHuge) -> HugeSplit:
        """Split the huge pages among the frames that a drain would move."""
        n = self._n
        frames = self._single(draining=True)[: command.counts[n.id].sum()]
        blocks = np.unique(block_of(frames[is_huge_word(frames)]))
        n.counters["thp_migration_split"] += len(blocks)
        n.out.send(Kind.SPLIT, np.repeat(np.arange(n.nodes), len(blocks)), np.tile(blocks, n.nodes))
        return HugeSplit(len(blocks))

    def move(self, command: MoveFrames) -> None:
        """Begin the migration of this node's frames."""
        to = command.counts[self._n.id]
        self._n.migration_seq = command.seq
        self._migration.start_relocation()
        if command.preferred:
            frames, best = self._preferred
            self._preferred = (_NONE, _NONE)
            going = _rank_within(best) < to[best]
            torn = block_of(frames[is_huge_word(frames) & ~going])
            going &= ~(is_huge_word(frames) & np.isin(block_of(frames), torn))
        else:
            frames = self._frames_to_move(command, to)
            best = np.repeat(np.arange(len(to)), to * (HUGE_SIZE if command.huge else 1))[: len(frames)]
            going = slice(None)
        self._going = frames[going]
        self._n.out.send(Kind.MIGRATE, self._n.id, self._going, best[going])

    def _frames_to_move(self, command: MoveFrames, to: I64) -> FrameWords:
        """Return the frames with the lowest pfns that move, or all frames of huge pages that do."""
        if not command.huge:
            return self._single(draining=command.draining)[: to.sum()]
        first = self._whole_huge_pages()[: to.sum()]
        return self._frames.words(self._n.id, pages_of_blocks(first >> HUGE_ORDER))

    def count_stayed(self, command: CountStayed) -> PagesStayed:
        """Return what a drain has left on this node, and why."""
        if self._n.id not in command.nodes:
            return PagesStayed(())
        # A frame that moved has left its name behind.
        used = self._frames.words(self._n.id, self._frames.in_use())
        unfound = int(np.count_nonzero(np.isin(self._going, used)))
        held = pages_in_use(self._frames.memory, self._owners)
        rows = (row for of_owner in held for row in self._reasons(of_owner, unfound, command.why))
        return PagesStayed(tuple(row for row in rows if row[1]))

    def _reasons(self, held: PagesInUse, unfound: int, why: str) -> Iterator[tuple[str, int, str]]:
        """Yield owner, number and reason of an owner's pages; `unfound`: KSM frames that failed to move."""
        if held.owner == UNMOVABLE or not held.movable:
            yield held.owner, held.pages, CANNOT_MOVE
        elif held.owner not in self._frames.owners:
            yield held.owner, held.pages, DRIVERS_STAY
        else:
            failed = unfound if held.owner == KSM_PAGES else 0
            yield held.owner, failed, UNFOUND
            yield held.owner, held.pages - failed, why


def _rank_within(groups: I64) -> I64:
    """Return how many elements of the same group come before each element. int64[n] -> int64[n]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty_like(groups)
    rank[order] = np.arange(len(groups)) - first
    return rank


def _join_huge_pages(frames: FrameWords, numbers: I64) -> None:
    """Give all frames of a huge page the greatest of their numbers, in place. int64[n], int64[n]."""
    huge = np.flatnonzero(is_huge_word(frames))
    if len(huge):
        blocks, which = np.unique(block_of(frames[huge]), return_inverse=True)
        greatest = np.full(len(blocks), np.iinfo(np.int64).min)
        np.maximum.at(greatest, which, numbers[huge])
        numbers[huge] = greatest[which]


def granted(preferred: I64, free: I64, most: int | None) -> I64:
    """Return how many frames may move from row to column: as many as fit, lowest nodes first.

    `preferred` int64[nodes, nodes]: how many frames prefer to move; `free` int64[nodes]: free frames. At most
    `most` frames move in all. Returns int64[nodes, nodes].
    """
    counts: I64 = np.diff(np.minimum(np.cumsum(preferred, axis=0), free), axis=0, prepend=0)
    if most is not None:
        counts = np.diff(np.minimum(np.cumsum(counts), most), prepend=0).reshape(counts.shape)
    return counts
