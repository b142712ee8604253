"""A Ray actor that has one NUMA node, or several: a thin shell around `cluster.fabric.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import ray

from cluster.commands import Command
from cluster.fabric import Host, Parcels
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec


class NodeActor:
    """Carries commands and messages to its nodes."""

    def take(self, nodes: list[int], spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]) -> str:
        """Has these nodes from now on, empty, and no others; returns the Ray node that it runs on."""
        self._host = Host(nodes, spec, snapshots)
        self._number = 0
        self._last: list[object] = []
        return str(ray.get_runtime_context().get_node_id())

    def step(
        self, number: int, command: Command | None, to: list[int], actor_of: list[int], *packed: bytes
    ) -> list[object]:
        """Superstep `number` of the nodes `to`; a repeated call gets the answer of the first one.

        `packed` is what actors sent to these nodes in the last superstep, `actor_of[n]` is the actor of
        node n. To be called with so many returns: the reports, then what goes to each actor.
        """
        if number != self._number:
            parcels = [parcel for part in packed for parcel in pickle.loads(part)]
            reports, sent = self._host.step(command, parcels, to)
            by_actor: list[Parcels] = [[] for _ in range(actor_of[-1] + 1)]
            for parcel in sent:
                by_actor[actor_of[parcel[1]]].append(parcel)
            # Most parcels are many small arrays; Ray takes three times as long over each of them.
            self._last = [reports, *(pickle.dumps(parcels, 5) if parcels else b"" for parcels in by_actor)]
            self._number = number
        return self._last
