"""The memory of the benchmarks: half of all pages unique, half in groups of 16 equal pages."""

from __future__ import annotations

import numpy as np

from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
)

GROUP = 16
#: Processes per node if the groups are spread over the machine.
_PER_NODE = 4
#: Every page is visited in every pass.
_KSM = KsmSpec(smart_scan=0)


def grouped(pages: int, content: str, passes: int) -> SimulationSpec:
    """Return one node with 16 processes; each holds one page of each group, then as many unique pages.

    `pages` is a multiple of 32.
    """
    half = pages // (2 * GROUP)
    regions = (
        RegionSpec("shared", half, ContentModel.REPLICATED),
        RegionSpec("unique", half, ContentModel.UNIQUE),
    )
    return _spec(1, pages, content, (ProcessSpec("rank", GROUP, regions),), passes)


def spread_out(nodes: int, pages_per_node: int, passes: int) -> SimulationSpec:
    """Return groups of 16 pages on average, spread over the machine; pages per node are a multiple of 8."""
    half = pages_per_node // (2 * _PER_NODE)
    distinct = max(1, half * _PER_NODE * nodes // GROUP)
    regions = (
        RegionSpec("shared", half, ContentModel.POOL, pool="shared", distinct=distinct),
        RegionSpec("unique", half, ContentModel.UNIQUE),
    )
    kind = ProcessSpec("rank", _PER_NODE * nodes, regions)
    return _spec(nodes, pages_per_node, "symbolic", (kind,), passes)


def _spec(
    nodes: int, pages_per_node: int, content: str, kinds: tuple[ProcessSpec, ...], passes: int
) -> SimulationSpec:
    distance = np.where(np.eye(nodes, dtype=np.bool_), 10, 20).astype(np.int64)
    machine = MachineSpec(nodes, pages_per_node, distance, content)
    return SimulationSpec(machine, _KSM, kinds, passes=passes)
