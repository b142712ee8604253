"""Relocations of processes' frames between the nodes of the machine (`cluster.numa.relocate_frames`)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.internode.drain import LIMIT, NO_ROOM, Drained, Stayed
from cluster.compaction.internode.flows import matrix, transfers
from cluster.machine.fabric import Exchange
from cluster.numa.relocate_frames import granted
from cluster.spec.compaction import RelocationSpec
from cluster.spec.topology import Distances
from cluster.wire import commands as c
from cluster.wire.rmap_walks import RmapWalks, joined_walks


class MovedFrames(NamedTuple):
    """How many frames moved from row to column, and mappings of KSM frames among them.

    pages, mappings int64[nodes, nodes]. walks: over these KSM frames.
    """

    pages: I64
    mappings: I64
    walks: RmapWalks


class MachineRelocation:
    """The coordinator's part in relocations."""

    def __init__(self, exchange: Exchange, nodes: int, next_seq: Callable[[], int]) -> None:
        self._exchange = exchange
        self._nodes = nodes
        self._next_seq = next_seq

    def relocate(self, spec: RelocationSpec, distance: Distances) -> MovedFrames:
        """Move frames of processes between nodes; return how many moved."""
        nearer = spec.kind == "nearer"
        chosen = np.isin(np.arange(self._nodes), spec.nodes) if spec.nodes else np.ones(self._nodes, np.bool_)
        counts = self._preferred(spec, chosen) if nearer else self._planned(spec, chosen, distance)
        self._exchange.run(c.MoveFrames(counts, nearer, spec.kind == "drain", self._next_seq()))
        answers = self._exchange.answers(c.CountMoved(), c.MovedIn)
        return MovedFrames(
            np.array([answer.counts for answer in answers]).T,
            np.array([answer.mappings for answer in answers]).T,
            joined_walks(answer.walks for answer in answers),
        )

    def _planned(self, spec: RelocationSpec, chosen: Bool, distance: Distances) -> I64:
        """Return how many frames are to move from row to column to drain nodes or to even them out."""
        census = self._frame_counts(draining=spec.kind == "drain")
        return matrix(transfers(spec.kind, census, chosen, distance, spec.most_pages), self._nodes)

    def _frame_counts(self, *, draining: bool) -> I64:
        return np.array(self._exchange.answers(c.CountFrames(draining), c.FrameCounts))

    def drained(self, spec: RelocationSpec) -> dict[int, Drained]:
        """Return what stayed on the nodes that this relocation, the last one, has drained."""
        if spec.kind != "drain":
            return {}
        room = np.delete(self._frame_counts(draining=True)[:, 2], list(spec.nodes))
        why = LIMIT if spec.most_pages is not None and room.any() else NO_ROOM
        answers = self._exchange.answers(c.CountStayed(spec.nodes, why), c.PagesStayed)
        return {
            node: Drained(
                0, offline=0, pageblocks=0, fixed=0, stayed=tuple(starmap(Stayed, answers[node].stayed))
            )
            for node in spec.nodes
        }

    def _preferred(self, spec: RelocationSpec, chosen: Bool) -> I64:
        """Return how many frames are to move from row to column because they prefer that node."""
        self._exchange.run(c.TellMappings())
        answers = self._exchange.answers(c.FindPreferredNodes(spec.min_gain), c.PreferredNodes)
        preferred = np.array([answer.counts for answer in answers]) * chosen[:, None]
        return granted(preferred, np.array([answer.free for answer in answers]), spec.most_pages)
