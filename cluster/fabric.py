"""How the coordinator reaches the nodes: supersteps of one command or none, until no message is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from cluster.commands import Command
from cluster.mailbox import Kind, Packed, receive
from cluster.node import Node, Report
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec


class Fabric(Protocol):
    """Carries commands and messages. Messages sent in one superstep arrive in the next."""

    nodes: int

    def superstep(self, command: Command | None) -> list[Report]:
        """One step of every node that gets a command or messages; reports by node."""


def exchange(fabric: Fabric, command: Command) -> list[Report]:
    """One command and all that follows from it; the reports on the command itself."""
    first = reports = fabric.superstep(command)
    while any(report.sent for report in reports):
        reports = fabric.superstep(None)
    return first


def pending(reports: list[Report], kind: Kind) -> bool:
    """Whether messages of that kind are under way."""
    return any(kind in report.sent for report in reports)


class Host:
    """Some of the nodes, in one process: what an actor wraps."""

    def __init__(
        self, nodes: list[int], spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]
    ) -> None:
        self.nodes = {node: Node(node, spec, snapshots) for node in nodes}

    def step(
        self, command: Command | None, packed: list[Packed], to: list[int]
    ) -> tuple[dict[int, Report], dict[int, Packed]]:
        """One superstep of the nodes `to`; `packed` is what nodes sent in the last one, in their order."""
        reports, sent = {}, {}
        for node in to:
            reports[node], sent[node] = self.nodes[node].step(command, receive(node, packed))
        return reports, sent


class InlineFabric:
    """All nodes in this process, without Ray."""

    def __init__(self, spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]) -> None:
        self.nodes = spec.machine.nodes
        self.host = Host(list(range(self.nodes)), spec, snapshots)
        self._sent: dict[int, Packed] = {}
        self._to = np.zeros(self.nodes, np.bool_)

    def superstep(self, command: Command | None) -> list[Report]:
        to = list(range(self.nodes)) if command is not None else np.flatnonzero(self._to).tolist()
        reports, self._sent = self.host.step(command, [self._sent[n] for n in sorted(self._sent)], to)
        self._to = np.logical_or.reduce([r.to for r in reports.values()]) if reports else self._to & False
        return [reports[node] for node in sorted(reports)]
