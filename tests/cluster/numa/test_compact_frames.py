"""Compaction of memory that processes share with drivers: pages move, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.arrays.words import is_ksm_word, node_of_frame, pfn_of, private_word
from cluster.compaction.movable.movable_frames import MovableFrames
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.compaction.scenario.node_report import NodeReport
from cluster.mm.frames import PAGE_MAPPING_FLAGS, PAGE_MAPPING_KSM
from cluster.spec.compaction import CompactionSpec, DriverSpec, MigrationCostSpec
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    Law,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import fully_connected, ring
from tests.cluster.compaction.test_node_memory import holdings
from tests.cluster.machine.random_workload import FIRST, KNOBS, NODES, REGION, STEPS, Workload

DRIVERS = (
    DriverSpec("swap", "zram", 0.5, 0.7, (("object_size", 1300),)),
    DriverSpec("buffers", "gpu", 0.2, 0.5, (("busy", 0.3),)),
)
SPEC = CompactionSpec(NODES, 4 * 512, DRIVERS, unmovable=0.03, compactors=2, attempts=2, seed=5)
#: Of the processes that a workload begins with.
PAGES_OF_WORKLOAD = 2 * REGION


@dataclass
class Compacted:
    """A workload on memory that is compacted."""

    spec: CompactionSpec = SPEC
    knobs: KsmSpec = field(default_factory=KsmSpec)
    content: str = "symbolic"
    workload: Workload = field(init=False)

    def __post_init__(self) -> None:
        self.workload = Workload(self.knobs, self.content, self.spec)
        self.nodes = self.workload.fabric.host.nodes
        self.machine = self.workload.machine

    def compact(self) -> tuple[NodeReport, ...]:
        """Compacts all nodes; only where pages are changes."""
        columns = self.machine.collect()  # what is under way arrives before
        before = self.state()
        compactor_pool = InlineCompactorPool(self.workload.fabric.host.memories)
        reports = self.machine.compact(self.spec, compactor_pool)
        self.workload.check()
        after = self.state()
        assert after == before
        now = self.machine.collect()
        del columns["bytes_sent"], now["bytes_sent"]
        assert {k: v.tolist() for k, v in now.items()} == {k: v.tolist() for k, v in columns.items()}
        return reports

    def state(self) -> list[Any]:
        """Everything but pfns."""
        found: list[Any] = [holdings(memory) for memory in self.workload.fabric.host.memories.values()]
        for dump in self.machine.dump():
            pte = dump.pte
            found.append([dump.keys.tolist(), dump.state.tolist(), dump.processes])
            found.append(np.where(pte >= 0, node_of_frame(np.maximum(pte, 0)), pte).tolist())
            found.append((is_ksm_word(np.maximum(pte, 0))).tolist())
        return found

    def frames(self, node: int) -> MovableFrames:
        frames = self.nodes[node].state.frames
        assert isinstance(frames, MovableFrames)
        return frames


def three_sharers(spec: CompactionSpec, **knobs: int) -> tuple[Compacted, list[int]]:
    """A page that processes on three nodes share, in a frame of node 0; the processes."""
    made = Compacted(spec, KsmSpec(**knobs))  # type: ignore[arg-type]
    mms = [made.machine.new_process(node) for node in (0, 1, 2)]
    for mm in mms:
        made.machine.map(mm, FIRST, 1, PolicySpec(PolicyMode.BIND, (0,)))
        made.machine.write(mm, np.array([FIRST]), np.array([77], np.uint64))
        made.machine.madvise(mm, FIRST, 1, mergeable=True)
        made.workload.pages[mm] = {FIRST: 77}
    for _ in range(3):
        made.machine.scan()
    assert len(set(frames_of(made, mms))) == 1
    return made, mms


def frames_of(made: Compacted, mms: list[int]) -> list[int]:
    made.machine.collect()
    found = []
    for mm in mms:
        state = made.nodes[mm >> 15].state
        slots = state.spaces.slots(state.spaces.mms[mm], np.array([FIRST]))
        found.append(int(state.table.pte[slots[0]]))
    return found


@pytest.mark.parametrize("across", [0, 1])
def test_all_sharers_follow_a_ksm_page(across: int) -> None:
    made, mms = three_sharers(SPEC, merge_across_nodes=across, smart_scan=0)
    before = frames_of(made, mms)
    made.compact()
    after = frames_of(made, mms)
    assert len(set(after)) == 1
    assert private_word(after[0]) != private_word(before[0])
    store, pfn = made.frames(0), pfn_of(np.array(after[:1]))
    assert (store.mapcount[pfn], store.content[pfn]) == (3, 77)
    assert store.is_ksm(pfn).all()
    assert store.memory.pages.mapping[pfn] & PAGE_MAPPING_FLAGS == PAGE_MAPPING_KSM
    # The stable node is found: one page more of the content maps the same frame.
    mm = made.machine.new_process(0)
    made.machine.map(mm, FIRST, 1)
    made.machine.madvise(mm, FIRST, 1, mergeable=True)
    made.machine.write(mm, np.array([FIRST]), np.array([77], np.uint64))
    made.workload.pages[mm] = {FIRST: 77}
    for _ in range(2):
        made.machine.scan()
    assert frames_of(made, [mm]) == after[:1]
    assert store.mapcount[pfn] == 4
    made.workload.check()


def test_a_page_with_a_mapping_that_is_not_found_stays() -> None:
    """A child has inherited it, and ksmd has seen that the parent gave it up, but not the child yet.

    As in the kernel the page is isolated, tried ten times, and put back.
    """
    drivers = (DRIVERS[0], replace(DRIVERS[1], settings=()))
    spec = replace(SPEC, pages_per_node=8 * 512, compactors=1, drivers=drivers)
    made, mms = three_sharers(spec, smart_scan=0)
    child = made.machine.fork(mms[0])
    made.machine.write(mms[0], np.array([FIRST]), np.array([78], np.uint64))
    made.workload.pages |= {child: {FIRST: 77}, mms[0]: {FIRST: 78}}
    made.machine.scan(PAGES_OF_WORKLOAD + 1)
    sharers = [*mms[1:], child]
    before = frames_of(made, sharers)
    report = made.compact()[0]
    assert frames_of(made, sharers) == before
    # Its mappings are walked at each attempt, those of frames that move once.
    assert report.walks.number == 10 + report.by_driver["ksm"].moved
    assert (report.by_driver["ksm"].failed, report.by_driver["ksm"].retried) == (1, 9)
    assert report.by_driver["ksm"].moved > 0
    # The next pass finds the child's page.
    made.machine.scan()
    made.compact()
    assert len(set(frames_of(made, sharers))) == 1
    assert frames_of(made, sharers) != before


def test_a_pinned_page_is_not_isolated() -> None:
    made, mms = three_sharers(SPEC)
    before = frames_of(made, mms)
    pfn = pfn_of(np.array(before[:1]))
    made.frames(0).pin(pfn)
    compactor_pool = InlineCompactorPool(made.workload.fabric.host.memories)
    report = made.machine.compact(SPEC, compactor_pool)[0]
    assert frames_of(made, mms) == before
    assert (report.by_driver["ksm"].refused, report.by_driver["ksm"].failed) == (SPEC.compactors, 0)
    made.frames(0).unpin(pfn)
    made.workload.check()


FAULTY = DriverSpec(
    "odd", "faulty", 0.3, 0.5, (("refuse", 0.2), ("again", 0.3), ("fail", 0.2), ("no_memory", 0.01))
)


@settings(max_examples=25, deadline=None)
@given(
    knobs=KNOBS,
    steps=STEPS,
    seed=st.integers(0, 2**16),
    compactors=st.integers(1, 3),
    batch=st.sampled_from([1, 7, 32]),
    turn=st.sampled_from([1, 5, 64]),
    kernel=st.sampled_from(["4.8", "6.1"]),
    mode=st.sampled_from(["async", "sync-light", "sync"]),
    content=st.sampled_from(["symbolic", "bytes"]),
)
def test_nothing_but_places_changes(
    knobs: KsmSpec,
    steps: list[tuple[Any, ...]],
    seed: int,
    compactors: int,
    batch: int,
    turn: int,
    kernel: str,
    mode: str,
    content: str,
) -> None:
    """Drivers that fail, between steps of any workload: nothing comes apart."""
    spec = CompactionSpec(
        NODES,
        2 * 512,
        (replace(DRIVERS[0], share=0.4), FAULTY),
        unmovable=0.03,
        seed=seed,
        compactors=compactors,
        batch=batch,
        turn=turn,
        kernel=kernel,
        mode=mode,
    )
    made = Compacted(spec, knobs, content)
    for number, step in enumerate(steps):
        made.workload.run(step)
        if number % 4 == 3:
            made.compact()
    for _ in range(3):
        made.machine.scan()
        made.compact()
    if content == "bytes":
        made.workload.check_bytes()


@settings(max_examples=20, deadline=None)
@given(KNOBS, STEPS)
def test_ksmd_merges_what_it_merges_without_compaction(knobs: KsmSpec, steps: list[tuple[Any, ...]]) -> None:
    made, plain = Compacted(SPEC, knobs), Workload(knobs)
    for number, step in enumerate([*steps, *[("scan", None)] * 3]):
        made.workload.run(step)
        plain.run(step)
        if number % 3 == 0:
            made.compact()
        assert merged(made.workload) == merged(plain)


def merged(workload: Workload) -> tuple[Any, ...]:
    """All statistics but those of frames' pfns; who maps the same frame; states of all pages."""
    columns = workload.machine.collect()
    for name in ("frames_used", "frames_free", "frames_without_ksm", "bytes_sent"):
        del columns[name]
    dumps = workload.machine.dump()
    keys, pte, state = (
        np.concatenate([getattr(dump, name) for dump in dumps]) for name in ("keys", "pte", "state")
    )
    order = np.argsort(keys)
    pte, state = pte[order], state[order]
    present = pte >= 0
    _, first, which = np.unique(pte[present], return_index=True, return_inverse=True)
    statistics = {name: column.tolist() for name, column in columns.items()}
    return statistics, keys[order].tolist(), state.tolist(), first[which].tolist(), pte[~present].tolist()


REGIONS = (
    RegionSpec("libs", 120, ContentModel.REPLICATED, writes=(WriteSpec(0.2, hot_fraction=0.2),)),
    RegionSpec("pool", 90, ContentModel.POOL, pool="shared", distinct=40, law=Law.ZIPF),
    RegionSpec(
        "state",
        60,
        ContentModel.UNIQUE,
        policy=PolicySpec(PolicyMode.INTERLEAVE, (0, 1, 2)),
        writes=(WriteSpec(0.5, 0.3),),
    ),
)
SCENARIO = SimulationSpec(
    MachineSpec(3, 2048, ring(3)),
    KsmSpec(pages_to_scan=500, max_page_sharing=8),
    (ProcessSpec("rank", 9, REGIONS),),
    passes=5,
    windows_per_pass=2,
)


@pytest.mark.parametrize("across", [0, 1])
def test_a_scenario_with_compaction_is_the_same_scenario(across: int) -> None:
    plain = replace(SCENARIO, ksm=replace(SCENARIO.ksm, merge_across_nodes=across))
    made = list(run_passes(replace(plain, migration=SPEC), INLINE))
    assert sum(r.by_driver["ksm"].moved for result in made for r in result.compaction) > 20
    for result, without in zip(made, run_passes(plain, INLINE), strict=True):
        assert without.compaction == ()
        assert result.simulated_seconds == without.simulated_seconds
        for name in result.nodes.keys() - {"frames_used", "frames_free", "frames_without_ksm", "bytes_sent"}:
            assert result.nodes[name].tolist() == without.nodes[name].tolist(), name


def test_compaction_walks_all_mappings_of_the_ksm_frames_that_it_moves() -> None:
    """Each content is in three pages, and so each KSM frame has three mappings, of 2 us each."""
    copies = RegionSpec("copies", 900, ContentModel.UNIQUE, copies=3)
    cost = MigrationCostSpec(scan=0, attempt=0, copy=0, mapping=2000)
    machine = MachineSpec(1, 4 * 512, fully_connected(1))
    migration = replace(SPEC, nodes=1, compactors=1, cost=cost)
    kinds = (ProcessSpec("p", 1, (copies,)),)
    spec = SimulationSpec(machine, KsmSpec(), kinds, passes=3, migration=migration)
    reports = [result.compaction[0] for result in run_passes(spec, INLINE)]
    for report in reports:
        moved = report.by_driver["ksm"].moved
        assert report.walks == (moved, 3 * moved, 3 if moved else 0)
        assert report.seconds == pytest.approx(3 * moved * 2e-6)
    assert sum(report.walks.number for report in reports) > 50


def test_huge_pages_come_of_moving_ksm_pages_and_drivers_pages() -> None:
    spec = replace(SPEC, pages_per_node=8 * 512, drivers=(replace(DRIVERS[0], share=0.4), DRIVERS[1]))
    machine = replace(SCENARIO.machine, frames_per_node=8 * 512)
    ranks = (ProcessSpec("rank", 24, REGIONS),)
    scenario = replace(SCENARIO, machine=machine, processes=ranks, migration=spec)
    made = list(run_passes(scenario, INLINE))
    second = made[1].compaction
    assert sum(r.obtained_before for r in second) == 0
    assert sum(r.obtained_without for r in second) < sum(r.obtained_after for r in second)
    sizes = 1 << np.arange(11)
    for result in made:
        for node, report in enumerate(result.compaction):
            assert report.before @ sizes == report.after @ sizes == result.nodes["frames_free"][node]
            moved = sum(counts.moved for counts in report.by_driver.values())
            assert moved == report.vmstat["pgmigrate_success"]


def test_without_a_trigger_nothing_moves() -> None:
    spec = replace(SCENARIO, passes=3, migration=replace(SPEC, trigger="none"))
    for result in run_passes(spec, INLINE):
        for report in result.compaction:
            assert not any(report.vmstat.values())
            assert report.seconds == 0
            assert report.before.tolist() == report.after.tolist() == report.without.tolist()
