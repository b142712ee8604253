"""What came of a scenario's relocations, from what each node says of its own; and how long it all took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64
from cluster.compaction.internode.node_transfers import Drained
from cluster.compaction.scenario.node_memory import NodeReport
from cluster.spec.compaction import CompactionSpec, MigrationCostSpec, RelocationSpec
from cluster.spec.topology import LOCAL, Distances


@dataclass(frozen=True, slots=True, eq=False)
class Relocated:
    """One relocation. pages, attempts int64[nodes, nodes], from row to column; node_seconds float64[nodes].

    drained: by node.
    """

    spec: RelocationSpec
    pages: I64
    attempts: I64
    node_seconds: NDArray[np.float64]
    drained: dict[int, Drained] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Until the last node was done."""
        return float(self.node_seconds.max())


def relocated(spec: CompactionSpec, reports: Sequence[NodeReport]) -> list[Relocated]:
    """The relocations in the order of the scenario; `reports` of all nodes, in their order."""
    return [_relocated(spec, number, reports) for number in range(len(spec.relocations))]


def _relocated(spec: CompactionSpec, number: int, reports: Sequence[NodeReport]) -> Relocated:
    of_nodes = [report.relocations for report in reports]
    parts = [part for part in of_nodes if part is not None]
    pages = np.array([part.sent[number] for part in parts])
    attempts = np.array([part.attempts[number] for part in parts])
    drained = {
        report.node: drained
        for report, part in zip(reports, parts, strict=True)
        for drained in part.drained
        if drained.relocation == number
    }
    assert spec.distance is not None
    seconds = node_seconds(spec.cost, spec.distance, pages, attempts)
    return Relocated(spec.relocations[number], pages, attempts, seconds, drained)


def node_seconds(
    cost: MigrationCostSpec, distance: Distances, pages: I64, attempts: I64
) -> NDArray[np.float64]:
    """How long each node had to do with these transfers, as source or target. float64[nodes].

    Pairs of nodes work side by side; a copy takes as many times longer than one within a node as the distance
    is longer than that of a node to itself.
    """
    ns = attempts * cost.attempt + pages * distance / LOCAL * cost.copy
    seconds: NDArray[np.float64] = (ns.sum(axis=0) + ns.sum(axis=1)) / 1e9
    return seconds


def simulated_seconds(spec: CompactionSpec, reports: Sequence[NodeReport]) -> float:
    """Of the whole scenario: one relocation after the other, those `during` the compaction beside it."""
    taken = {"before": 0.0, "during": 0.0, "after": 0.0}
    for relocation in relocated(spec, reports):
        taken[relocation.spec.when] += relocation.seconds
    return taken["before"] + max(taken["during"], *(r.seconds for r in reports)) + taken["after"]
