"""The census at the end of a run, against what dumps of the nodes show of each process and frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cluster.arrays.columns import counts_in_runs
from cluster.machine.census import COUNTED
from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.mm.frames import PAGE_MAPPING_FLAGS, PAGE_MAPPING_KSM
from cluster.spec.captured_pages import (
    CapturedMapping,
    CapturedMoment,
    CapturedPages,
    CapturedProcess,
    OutsideMappers,
    SharedFrames,
)
from cluster.spec.scenario import (
    CapturedLayout,
    ContentModel,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
)
from cluster.spec.topology import ring
from cluster.wire.commands import MappingName

REGIONS = (
    RegionSpec("libs", 40, ContentModel.REPLICATED),
    RegionSpec("zero", 30, ContentModel.ZERO),
    RegionSpec("heap", 50, ContentModel.UNIQUE, copies=2),
    RegionSpec("untouched", 9, ContentModel.UNTOUCHED),
    RegionSpec("private", 20, ContentModel.UNIQUE, mergeable=False),
)
KINDS = (
    ProcessSpec("rank", 5, REGIONS),
    ProcessSpec("idle", 2, (RegionSpec("libs", 7, ContentModel.UNIQUE),)),
    ProcessSpec("empty", 1, ()),
)
SPEC = SimulationSpec(MachineSpec(3, 400, ring(3)), KsmSpec(use_zero_pages=1, max_page_sharing=4), KINDS)


def scanned(spec: SimulationSpec, snapshots: dict[str, CapturedPages] | None = None) -> Machine:
    machine = Machine(InlineFabric(spec, snapshots or {}), spec.ksm)
    machine.populate(spec.processes)
    for _ in range(3):
        machine.scan()
    return machine


def test_each_process_has_what_its_node_shows_of_it() -> None:
    machine = scanned(SPEC)
    census = machine.census()
    assert census.kinds.tolist() == [0] * 5 + [1] * 2 + [2]
    assert census.numbers.tolist() == [0, 1, 2, 3, 4, 0, 1, 0]
    # Blocks over three nodes.
    assert census.nodes.tolist() == [0, 0, 1, 1, 2, 0, 1, 0]
    shown = {mm: stat for node in machine.dump() for mm, stat in node.processes.items()}
    rows = dict(zip(COUNTED, census.processes.T.tolist(), strict=True))
    # The processes of a node in the order of the scenario.
    order = np.lexsort((np.arange(8), census.nodes))
    for row, (_, stat) in zip(order.tolist(), sorted(shown.items()), strict=True):
        assert rows["ksm_merging_pages"][row] == stat.ksm_merging_pages
        assert rows["ksm_rmap_items"][row] == stat.ksm_rmap_items
        assert rows["ksm_zero_pages"][row] == stat.ksm_zero_pages


def test_mappings_of_one_name_are_counted_together() -> None:
    """Worked out by hand: zeros have no frame; of five equal pages of libs, four merge and one waits."""
    census = scanned(SPEC).census()
    found = dict(zip(census.mapping_names, census.mappings.tolist(), strict=True))
    assert found == {
        # pages_mapped, ksm_rmap_items, ksm_merging_pages, ksm_zero_pages, pages_unshared
        MappingName(0, "", "heap"): [250, 250, 250, 0, 0],
        MappingName(0, "", "libs"): [200, 200, 160, 0, 40],
        MappingName(0, "", "private"): [100, 0, 0, 0, 0],
        MappingName(0, "", "untouched"): [0, 0, 0, 0, 0],
        MappingName(0, "", "zero"): [0, 0, 0, 150, 0],
        MappingName(1, "", "libs"): [14, 14, 0, 0, 14],
    }


@pytest.mark.parametrize("sharing", [2, 3, 256])
def test_ksm_frames_are_counted_by_their_mappings(sharing: int) -> None:
    machine = scanned(replace(SPEC, ksm=replace(SPEC.ksm, max_page_sharing=sharing, use_zero_pages=0)))
    expected: Counter[int] = Counter()
    for node in machine.dump():
        ksm = (node.mapping & PAGE_MAPPING_FLAGS) == PAGE_MAPPING_KSM
        # 1, 2, 3 to 4, 5 to 8, ...
        expected.update((int(count) - 1).bit_length() for count in node.mapcount[ksm])
    census = machine.census()
    assert dict(enumerate(census.ksm_frames.tolist())) == {
        power: expected[power] for power in range(max(expected) + 1)
    }
    assert census.ksm_frames.sum() == machine.collect()["ksm_frames"].sum() > 0


def test_sums_are_the_statistics_of_the_nodes() -> None:
    machine = scanned(SPEC)
    census, statistics = machine.census(), machine.collect()
    gauges = {"ksm_rmap_items": "rmap_items"}
    for counted in (census.processes, census.mappings):
        for name, total in zip(COUNTED, counted.sum(axis=0).tolist(), strict=True):
            assert total == statistics[gauges.get(name, name)].sum()


def test_captured_processes_and_their_mappings_have_names() -> None:
    """Three processes of two captured ones; a mapping in two parts is one row."""
    pages = np.array([0, 1, 50])
    moment = CapturedMoment(pages, np.array([7, 7, 8], np.uint64), pages < 0, pages < 0)
    parts = (CapturedMapping("[heap]", 0, 2, advised=True), CapturedMapping("[heap]", 50, 1, advised=True))
    alone = SharedFrames.none(), OutsideMappers.none()
    captured = tuple(
        CapturedProcess(name, parts, (moment,), family, *alone) for family, name in enumerate("ab")
    )
    snapshot = CapturedPages(captured, (0.0,))
    layout = CapturedLayout((0, 1), (True, True), (0.0,), (0.0, 0.0))
    kinds = (ProcessSpec("job", 3, (), snapshot="s", layout=layout),)
    census = scanned(replace(SPEC, processes=kinds), {"s": snapshot}).census()
    assert census.mapping_names == (MappingName(0, "a", "[heap]"), MappingName(0, "b", "[heap]"))
    assert census.mappings[:, 0].tolist() == [6, 3]


def test_counts_in_runs() -> None:
    rng = np.random.default_rng(1)
    chosen = rng.random(1000) < 0.4
    starts = np.unique(rng.integers(0, 1000, 40))
    expected = [int(chosen[low:high].sum()) for low, high in zip(starts, [*starts[1:], 1000], strict=True)]
    assert counts_in_runs(chosen, starts).tolist() == expected
    assert counts_in_runs(chosen, starts[:0]).tolist() == []
