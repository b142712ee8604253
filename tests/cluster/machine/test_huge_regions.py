"""Regions that begin with huge pages, against the exact engine; where they are, and what they change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.arrays.words import HUGE_SIZE
from cluster.exact import ExactEngine
from cluster.machine.fabric import InlineFabric
from cluster.machine.simulation import Simulation
from cluster.mm.page_state import HUGE
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import ring
from tests.cluster.machine.test_workers import ALWAYS, PASSES, held, replayed, simulated

REGIONS = (
    RegionSpec("lib", 600, ContentModel.REPLICATED, huge_pages=1.0),
    RegionSpec("own", 1100, ContentModel.UNIQUE, huge_pages=1.0),
    RegionSpec("groups", 1024, ContentModel.UNIQUE, copies=3, huge_pages=1.0),
    RegionSpec("small", 520, ContentModel.UNIQUE, copies=520),
)
ZEROS = RegionSpec("zeros", 530, ContentModel.ZERO, huge_pages=1.0)


def spec_of(kernel: str, knobs: dict[str, int], kind: ProcessSpec, nodes: int = 1) -> SimulationSpec:
    machine = MachineSpec(nodes, 1 << 15, ring(nodes))
    return SimulationSpec(
        machine, KsmSpec(kernel=kernel, **knobs), (kind,), passes=PASSES, windows_per_pass=1
    )


def blocks(spec: SimulationSpec) -> list[list[int]]:
    """By process of the first node, which of its aligned 512 pages are huge pages at the start, in order."""
    fabric = InlineFabric(spec, {})
    Simulation(fabric, spec, None)
    node = fabric.host.nodes[0].state
    huge = (node.table.state & HUGE) != 0
    found = []
    for mm in node.spaces.mms.values():
        (vma,) = mm.vmas
        of_vma = huge[vma.slot0 : vma.slot0 + vma.pages // HUGE_SIZE * HUGE_SIZE].reshape(-1, HUGE_SIZE)
        assert np.array_equal(of_vma.any(axis=1), of_vma.all(axis=1))
        found.append(np.flatnonzero(of_vma.all(axis=1)).tolist())
    return found


@pytest.mark.parametrize("same", [False, True], ids=["no-writes", "same"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("kernel", "regions", "knobs"),
    [
        ("6.18", REGIONS, {"smart_scan": 0}),
        ("6.18", REGIONS, {"smart_scan": 1, "max_page_sharing": 3}),
        ("6.18.15", REGIONS, {"smart_scan": 1}),
        ("6.12", REGIONS, {"smart_scan": 1, "use_zero_pages": 1}),
        ("6.1", REGIONS, {"smart_scan": 0}),
        # The exact engine's clock stands still, so chains are pruned always, or never.
        ("6.1", REGIONS, {"smart_scan": 0, "max_page_sharing": 4, "stable_node_chains_prune_millisecs": 0}),
        # Alone: which searches for others a page of zeros stops that a split took away hangs on contents.
        ("6.18", (ZEROS,), {"smart_scan": 0, "use_zero_pages": 1}),
        ("6.12", (ZEROS,), {"smart_scan": 1, "max_page_sharing": 3}),
    ],
)
def test_huge_pages_are_those_of_a_program(
    kernel: str, regions: tuple[RegionSpec, ...], knobs: dict[str, int], workers: int, same: bool
) -> None:
    """As in a program that asks for huge pages, writes its memory, and forks."""
    writes = (WriteSpec(ALWAYS, 0.5, content=Rewrite.SAME),) if same else ()
    written = tuple(replace(region, writes=writes) for region in regions)
    ours = simulated(spec_of(kernel, knobs, ProcessSpec("pool", 2, written, workers=workers)))
    engine = ExactEngine(PROFILES[kernel])
    for knob, value in knobs.items():
        engine.set_knob(knob, str(value))
    rewritten = []
    for process in range(2):
        name = f"P{process}"
        engine.proc(name)
        for region in regions:
            engine.map(name, region.name, region.pages, None)
            engine.mergeable(name, region.name, 0, region.pages)
            if region.huge_pages:
                engine.huge(name, region.name, 0, region.pages)
            engine.fill(name, region.name, np.arange(region.pages), held(region, process))
        children = [f"{name}.{worker + 1}" for worker in range(workers)]
        for child in children:
            engine.fork(name, child)
        for writer in (name, *children) if same else ():
            for region in regions:
                hot = np.arange(round(region.pages / 2))
                rewritten.append((writer, region.name, hot, held(region, process)[hot]))
    theirs = replayed(engine, rewritten, PASSES)
    assert [{name: of_pass[name] for name in theirs[0]} for of_pass in ours] == theirs


def test_a_share_of_the_aligned_blocks_is_huge() -> None:
    """Three of six whole blocks, others in each process; with another seed others again."""
    region = RegionSpec("heap", 6 * HUGE_SIZE + 100, ContentModel.UNIQUE, huge_pages=0.5)
    spec = spec_of("6.18", {}, ProcessSpec("p", 4, (region,)))
    found = blocks(spec)
    assert [len(of_process) for of_process in found] == [3] * 4
    assert len({tuple(of_process) for of_process in found}) > 1
    assert blocks(replace(spec, seed=2)) != found


def test_huge_pages_come_from_the_nodes_of_the_policy() -> None:
    """A process of node 0 whose memory is bound to node 1; it holds what small pages would."""
    region = RegionSpec("heap", 2 * HUGE_SIZE, ContentModel.UNIQUE, mergeable=False, copies=2)
    kind = ProcessSpec("p", 1, (region,), policy=PolicySpec(PolicyMode.BIND, (1,)))
    contents = []
    for share in (0.0, 0.5):
        kind = replace(kind, regions=(replace(region, huge_pages=share),))
        spec = spec_of("6.18", {}, kind, nodes=2)
        fabric = InlineFabric(spec, {})
        Simulation(fabric, spec, None).run_pass()
        assert len(fabric.host.nodes[0].state.frames.in_use()) == 0
        node = fabric.host.nodes[1].state
        contents.append(np.sort(node.frames.content[node.frames.in_use()]).tolist())
    assert len(contents[0]) == 2 * HUGE_SIZE
    assert contents[0] == contents[1]


def test_small_pages_where_no_huge_page_is_free() -> None:
    """A node of three blocks, of which small pages take a part of the first."""
    regions = (
        RegionSpec("small", 1, ContentModel.UNIQUE),
        RegionSpec("heap", 2 * HUGE_SIZE + 300, ContentModel.UNIQUE, huge_pages=1.0),
        RegionSpec("more", HUGE_SIZE - 301, ContentModel.UNIQUE),
    )
    machine = MachineSpec(1, 3 * HUGE_SIZE, ring(1))
    spec = SimulationSpec(machine, KsmSpec(), (ProcessSpec("p", 1, regions),))
    first = Simulation(InlineFabric(spec, {}), spec, None).run_pass()
    assert first.nodes["thp_fault_alloc"].sum() == 2
    assert first.nodes["frames_free"].sum() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_zeros_that_a_split_takes_away_are_saved(workers: int) -> None:
    """Without ksmd no huge page would be split, so what was in use at the start would still be."""
    regions = (
        RegionSpec("zeros", 1024, ContentModel.ZERO, huge_pages=1.0),
        RegionSpec("pairs", 1024, ContentModel.UNIQUE, copies=2, huge_pages=0.5),
    )
    kinds = (ProcessSpec("pool", 1, regions, workers=workers),)
    spec = SimulationSpec(MachineSpec(1, 1 << 13, ring(1)), KsmSpec(smart_scan=0), kinds)
    simulation = Simulation(InlineFabric(spec, {}), spec, None)
    passes = [simulation.run_pass() for _ in range(3)]
    assert [int(of_pass.nodes["frames_without_ksm"].sum()) for of_pass in passes] == [2048] * 3
    # One of each pair; all pages of zeros are gone but those that merged.
    assert passes[-1].nodes["frames_used"].sum() <= 512 + 2
