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

    def relocate(self, spec: RelocationSpec, distance: Distances, *, huge: bool) -> MovedFrames:
        """Move frames of processes between nodes; return how many moved. `huge`: there may be huge pages."""
        chosen = np.isin(np.arange(self._nodes), spec.nodes) if spec.nodes else np.ones(self._nodes, np.bool_)
        if spec.kind == "nearer":
            return self._move(spec, self._preferred(spec, chosen))
        if not huge:
            return self._move(spec, self._planned(spec, chosen, distance, spec.most_pages))
        whole = self._move(spec, self._planned(spec, chosen, distance, spec.most_pages, huge=True), huge=True)
        most = None if spec.most_pages is None else spec.most_pages - int(whole.pages.sum())
        counts = self._planned(spec, chosen, distance, most)
        while spec.kind == "drain" and self._split_huge(counts):
            # pages of zeros are gone
            counts = self._planned(spec, chosen, distance, most)
        single = self._move(spec, counts)
        return MovedFrames(
            whole.pages + single.pages,
            whole.mappings + single.mappings,
            joined_walks([whole.walks, single.walks]),
        )

    def _move(self, spec: RelocationSpec, counts: I64, *, huge: bool = False) -> MovedFrames:
        preferred, draining = spec.kind == "nearer", spec.kind == "drain"
        self._exchange.run(c.MoveFrames(counts, preferred, draining, huge, self._next_seq()))
        answers = self._exchange.answers(c.CountMoved(), c.MovedIn)
        return MovedFrames(
            np.array([answer.counts for answer in answers]).T,
            np.array([answer.mappings for answer in answers]).T,
            joined_walks(answer.walks for answer in answers),
        )

    def _planned(
        self, spec: RelocationSpec, chosen: Bool, distance: Distances, most: int | None, *, huge: bool = False
    ) -> I64:
        """Return how many frames, or huge pages, move from row to column to drain nodes or even them out."""
        counts = self._frame_counts(draining=spec.kind == "drain")
        of_huge = counts[:, 3:] if huge else None
        rows = transfers(spec.kind, counts[:, :3], chosen, distance, most, of_huge)
        return matrix(rows, self._nodes)

    def _split_huge(self, counts: I64) -> bool:
        """Split huge pages that no node has room for as a whole; return whether there were any."""
        return any(answer.number for answer in self._exchange.answers(c.SplitHuge(counts), c.HugeSplit))

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
