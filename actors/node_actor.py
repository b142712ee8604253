"""A Ray actor that has one NUMA node, or several: a thin shell around `cluster.fabric.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from actors.hosts import group_of
from actors.lean import Lean
from cluster.fabric import Host
from cluster.parcels import Parcels, packed, unpacked
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec
from cluster.words import U8

if TYPE_CHECKING:
    from cluster.migration.machine import Memories, Turn


class NodeActor(Lean):
    """Carries commands and messages to its nodes."""

    def take(
        self,
        nodes: list[int],
        actor_of: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, SnapshotPages],
    ) -> str:
        """Has these nodes from now on, empty, and no others; returns the Ray node that it runs on.

        `actor_of[n]` is the actor of node n.
        """
        self._host = Host(nodes, spec, snapshots)
        self._actor_of = actor_of
        self._own = actor_of[nodes[0]]
        self._number = 0
        self._last: list[Any] = []
        #: What its nodes sent each other in the last superstep.
        self._kept: Parcels = []
        return str(ray.get_runtime_context().get_node_id())

    # A turn that Ray repeats would be another one.
    @ray.method(max_task_retries=0)
    def take_turns(self, turns: Sequence[Turn]) -> list[bool]:
        """Turns of compactors of its nodes; which are done."""
        return self._memories().take(turns)

    def abandon(self, turns: Sequence[Turn]) -> None:
        """Whoever drove these compactors is gone; they are of these generations from now on."""
        self._memories().abandon(turns)

    def _memories(self) -> Memories:
        # Only some scenarios have compactors; without their modules an actor starts sooner.
        from cluster.migration.machine import Memories

        return Memories(self._host.memories)

    def step(self, number: int, command: bytes, to: list[int], *parcels: U8) -> list[Any]:
        """Superstep `number` of the nodes `to`; a repeated call gets the answer of the first one.

        `parcels` are what other actors sent to these nodes in the last superstep, and perhaps to others.
        To be called with so many returns: the reports, pickled, then what goes to each group of actors.
        """
        if number != self._number:
            mine = frozenset(to)
            received = [*self._kept, *(parcel for part in parcels for parcel in unpacked(part, mine))]
            self._kept = []
            reports, sent = self._host.step(pickle.loads(command), received, to)
            groups: list[Parcels] = [[] for _ in range(group_of(self._actor_of[-1]) + 1)]
            for parcel in sent:
                actor = self._actor_of[parcel[1]]
                (self._kept if actor == self._own else groups[group_of(actor)]).append(parcel)
            self._last = [pickle.dumps(reports, 5), *(packed(group) if group else None for group in groups)]
            self._number = number
        return self._last
