"""Simulated time, worked out by hand: of one ksmd, and of one for each node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.run_options import INLINE
from actors.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import ksmd_cpu_ns
from cluster.spec.scenario import (
    ContentModel,
    CostSpec,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import fully_connected

#: Two processes of 100 pages are on node 0, a third on node 1; each visit takes 1 ms.
SPEC = SimulationSpec(
    machine=MachineSpec(2, 400, fully_connected(2)),
    ksm=KsmSpec(merge_across_nodes=0, smart_scan=0, pages_to_scan=30, sleep_millisecs=20),
    processes=(ProcessSpec("a", 3, (RegionSpec("r", 100, ContentModel.UNIQUE, copies=2),)),),
    passes=3,
    cost=CostSpec(visit=1e6, checksum=0, tree_level=0, merge=0),
)


def simulated(threads: str, **changes: Any) -> list[PassResult]:
    spec = replace(SPEC, ksm=replace(SPEC.ksm, threads=threads), **changes)
    return list(run_passes(spec, INLINE))


def ends(results: list[PassResult]) -> list[float]:
    """When each pass was over."""
    return [result.simulated_seconds for result in results]


def test_one_ksmd_does_all_in_turn() -> None:
    # 300 pages: 300 ms of CPU and 10 sleeps of 20 ms.
    assert ends(simulated("one")) == pytest.approx([0.5, 1.0, 1.5])


def test_a_ksmd_for_each_node_takes_as_long_as_the_slowest() -> None:
    # Node 0: 200 ms and 7 sleeps, 340 ms. Node 1: 100 ms and 4 sleeps, 180 ms; then it waits.
    results = simulated("per-node")
    assert ends(results) == pytest.approx([0.34, 0.68, 1.02])
    assert all(result.nodes["ksmd_cpu_ns"].tolist() == [2e8, 1e8] for result in results)


def test_threads_wait_for_each_other_at_the_end_of_a_pass_not_of_a_window() -> None:
    # A window is a process: 100 ms and 4 sleeps. The third is node 1's, which was at work meanwhile.
    assert ends(simulated("one", windows_per_pass=3)) == pytest.approx([0.54, 1.08, 1.62])
    assert ends(simulated("per-node", windows_per_pass=3)) == pytest.approx([0.36, 0.72, 1.08])


def test_with_local_memory_both_do_the_same() -> None:
    one, many = simulated("one"), simulated("per-node")
    assert sum(result.nodes["pages_merged"].sum() for result in one) > 0
    for a, b in zip(one, many, strict=True):
        assert all(np.array_equal(a.nodes[name], b.nodes[name]) for name in a.nodes)


def test_writes_follow_the_time_of_the_pass() -> None:
    """All pages are written from 0.4 s on: one ksmd is in its first pass then, two are in their second."""
    region = replace(SPEC.processes[0].regions[0], writes=(WriteSpec(1e6, start=0.4),))
    kinds = (replace(SPEC.processes[0], regions=(region,)),)
    written = {
        threads: [int(r.nodes["pages_written"].sum()) for r in simulated(threads, processes=kinds)]
        for threads in ("one", "per-node")
    }
    assert written == {"one": [0, 300, 300], "per-node": [0, 0, 300]}


@pytest.mark.parametrize(("trees_per_node", "expected"), [(True, [50.0, 4.0]), (False, [50.0, 20.0])])
def test_a_search_costs_the_levels_of_the_trees_that_it_walks(
    trees_per_node: bool, expected: list[float]
) -> None:
    """Levels: log2(4) and log2(8) on node 0, log2(1) and log2(2) on node 1; log2(4) and log2(8) in all."""
    names = ("pages_scanned", "checksums", "changed", "pages_merged", "pages_shared", "pages_unshared")
    old = {name: np.zeros(2, np.int64) for name in names}
    unshared = [7, 1] if trees_per_node else [6, 1]
    new = old | {
        "checksums": np.array([10, 4]),
        "pages_shared": np.array([3, 0]),
        "pages_unshared": np.array(unshared),
    }
    cost = CostSpec(visit=0, checksum=0, tree_level=1, merge=0)
    assert ksmd_cpu_ns(cost, old, new, trees_per_node=trees_per_node).tolist() == expected
