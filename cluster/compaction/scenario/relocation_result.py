"""Results of a scenario's relocations, from the reports of all nodes, and its simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64
from cluster.compaction.internode.drain import Drained
from cluster.compaction.scenario.node_report import NodeReport
from cluster.spec.compaction import CompactionSpec, MigrationCostSpec, RelocationSpec
from cluster.spec.topology import LOCAL, Distances
from cluster.wire.rmap_walks import NO_WALKS, RmapWalks


@dataclass(frozen=True, slots=True, eq=False)
class RelocationResult:
    """Result of one relocation.

    pages, attempts int64[nodes, nodes]: from row to column. node_seconds float64[nodes]: simulated time.
    drained: results of drained nodes, by node. walks: over KSM frames.
    """

    spec: RelocationSpec
    pages: I64
    attempts: I64
    node_seconds: NDArray[np.float64]
    drained: dict[int, Drained] = field(default_factory=dict)
    walks: RmapWalks = NO_WALKS

    @property
    def seconds(self) -> float:
        """Simulated time until the last node was done."""
        return float(self.node_seconds.max())


def relocation_results(spec: CompactionSpec, reports: Sequence[NodeReport]) -> list[RelocationResult]:
    """Return the results of the relocations, in their order; `reports` are those of all nodes, in order."""
    return [_relocation_result(spec, number, reports) for number in range(len(spec.relocations))]


def _relocation_result(spec: CompactionSpec, number: int, reports: Sequence[NodeReport]) -> RelocationResult:
    of_nodes = [report.traffic for report in reports]
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
    return RelocationResult(spec.relocations[number], pages, attempts, seconds, drained)


def node_seconds(
    cost: MigrationCostSpec, distance: Distances, pages: I64, attempts: I64, mappings: I64 | int = 0
) -> NDArray[np.float64]:
    """Return the simulated time that each node spends on transfers, as source or target. float64[nodes].

    pages, attempts int64[nodes, nodes]: from row to column; mappings: of the KSM frames among these pages.
    Pairs of nodes work side by side. The time of a copy grows with the distance: `cost.copy` is that of a
    copy within a node, at distance LOCAL.
    """
    ns = attempts * cost.attempt + pages * distance / LOCAL * cost.copy + mappings * cost.mapping
    seconds: NDArray[np.float64] = (ns.sum(axis=0) + ns.sum(axis=1)) / 1e9
    return seconds


def simulated_seconds(spec: CompactionSpec, reports: Sequence[NodeReport]) -> float:
    """Return the simulated time of the whole scenario.

    Relocations take place one after the other; those `during` the compaction take place beside it.
    """
    taken = {"before": 0.0, "during": 0.0, "after": 0.0}
    for relocation in relocation_results(spec, reports):
        taken[relocation.spec.when] += relocation.seconds
    return taken["before"] + max(taken["during"], *(r.seconds for r in reports)) + taken["after"]
