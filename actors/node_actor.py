"""A Ray actor that has one NUMA node, or several: a thin shell around `cluster.fabric.Host`."""

from __future__ import annotations

from collections.abc import Mapping

import ray

from cluster.commands import Command
from cluster.fabric import Host
from cluster.mailbox import Packed
from cluster.node import Report
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec

Reports = dict[int, Report]
Sent = dict[int, Packed]


# num_cpus=0: a node waits for its turn most of the time, so there may be more nodes than cores.
@ray.remote(num_cpus=0, max_task_retries=2)
class NodeActor:
    """Carries commands and messages to its nodes."""

    def __init__(
        self, nodes: list[int], spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]
    ) -> None:
        self._host = Host(nodes, spec, snapshots)
        self._number = 0
        self._last: tuple[Reports, Sent] = ({}, {})

    def ready(self) -> str:
        """The Ray node that it runs on."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(num_returns=2)
    def step(self, number: int, command: Command | None, to: list[int], *sent: Sent) -> tuple[Reports, Sent]:
        """Superstep `number` of the nodes `to`; a repeated call gets the answer of the first one.

        `sent` is what other actors and this one sent to these nodes in the last superstep.
        """
        if number != self._number:
            packed = {node: p for part in sent for node, p in part.items()}
            self._last = self._host.step(command, [packed[node] for node in sorted(packed)], to)
            self._number = number
        return self._last
