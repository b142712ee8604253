"""Scenarios over Ray actors give what they give in one process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray

from actors.placement import machine_of_actors, node_blocks, node_ranges
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.coordinator_actor import CoordinatorActor
from actors.simulation.node_actor import LITTLE_MAIL
from actors.simulation.run_passes import run_passes
from cluster.machine.census import Census
from cluster.machine.fabric import Fabric
from cluster.machine.node import Report
from cluster.machine.pass_result import ActorsStarting, Event, PassDone, PassResult, PassStarted
from cluster.spec.captured_pages import (
    CapturedMapping,
    CapturedMoment,
    CapturedPages,
    CapturedProcess,
    OutsideMappers,
    SharedFrames,
)
from cluster.spec.compaction import CompactionSpec, DriverSpec, RelocationSpec
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import (
    CapturedLayout,
    ContentModel,
    KsmSpec,
    Law,
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
from cluster.wire import commands as c
from ksmcluster.bench.tools.shapes import spread_out

REGIONS = (
    RegionSpec("libs", 40, ContentModel.REPLICATED),
    RegionSpec("zero", 30, ContentModel.ZERO, writes=(WriteSpec(0.2, hot_fraction=0.5),)),
    RegionSpec("pool", 50, ContentModel.POOL, pool="shared", distinct=20, law=Law.ZIPF),
    RegionSpec(
        "state",
        60,
        ContentModel.UNIQUE,
        policy=PolicySpec(PolicyMode.INTERLEAVE, (0, 1, 2, 3)),
        writes=(WriteSpec(0.5, 0.3), WriteSpec(1.0, 0.2, content=Rewrite.ORIGINAL)),
    ),
)
#: Of a process and the workers that it forks.
SHARED_REGIONS = (
    RegionSpec("code", 20, ContentModel.UNIQUE, copies=2),
    RegionSpec("buffers", 9, ContentModel.REPLICATED, policy=PolicySpec(PolicyMode.BIND, (2,)), pinned=True),
    RegionSpec(
        "heap",
        30,
        ContentModel.REPLICATED,
        policy=PolicySpec(PolicyMode.INTERLEAVE, (1, 4)),
        writes=(WriteSpec(0.5, 0.5), WriteSpec(1.0, 0.8, content=Rewrite.SAME)),
    ),
)
SPEC = SimulationSpec(
    machine=MachineSpec(nodes=5, frames_per_node=800, distance=ring(5)),
    ksm=KsmSpec(max_page_sharing=8, advisor_mode="scan-time", advisor_target_scan_time=1),
    processes=(ProcessSpec("rank", 11, REGIONS), ProcessSpec("pool", 4, SHARED_REGIONS, workers=2)),
    passes=5,
    windows_per_pass=3,
)


@pytest.fixture(scope="module")
def pool(ray_cluster: str) -> Iterator[ActorPool]:
    """Actors that serve one test after the other: most take less time than actors to start."""
    with closing(ActorPool()) as pool:
        yield pool


def same(a: list[PassResult], b: list[PassResult]) -> bool:
    return len(a) == len(b) and all(
        x.simulated_seconds == y.simulated_seconds
        and x.pages_to_scan == y.pages_to_scan
        and x.full_scans == y.full_scans
        and all(np.array_equal(x.nodes[name], y.nodes[name]) for name in x.nodes)
        and same_census(x.census, y.census)
        for x, y in zip(a, b, strict=True)
    )


def same_census(a: Census | None, b: Census | None) -> bool:
    """Only the last pass has one."""
    if a is None or b is None:
        return a is b
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("across", [0, 1])
def test_ray_gives_what_inline_gives_however_nodes_are_packed(
    ray_cluster: str, pool: ActorPool, across: int
) -> None:
    spec = replace(SPEC, ksm=replace(SPEC.ksm, merge_across_nodes=across))
    inline = list(run_passes(spec, INLINE))
    assert sum(int(r.nodes["pages_merged"].sum()) for r in inline) > 300
    assert [r.census is not None for r in inline] == [False] * 4 + [True]
    for packed in (1, 2, 5):
        assert same(
            inline, list(run_passes(spec, RunOptions(address=ray_cluster, nodes_per_actor=packed), pool=pool))
        )


def test_a_ksmd_for_each_node_takes_the_same_time_on_ray(ray_cluster: str, pool: ActorPool) -> None:
    one = replace(SPEC, ksm=KsmSpec(merge_across_nodes=0, max_page_sharing=8))
    spec = replace(one, ksm=replace(one.ksm, threads="per-node"))
    inline = list(run_passes(spec, INLINE))
    assert inline[-1].simulated_seconds < list(run_passes(one, INLINE))[-1].simulated_seconds / 2
    assert same(inline, list(run_passes(spec, RunOptions(address=ray_cluster, nodes_per_actor=2), pool=pool)))


def test_ages_before_the_start_are_the_same_on_ray(ray_cluster: str, pool: ActorPool) -> None:
    spec = replace(SPEC, ksm=replace(SPEC.ksm, history="steady", history_passes=20))
    inline = list(run_passes(spec, INLINE))
    assert inline[0].nodes["pages_skipped"].sum() > 0
    for packed in (1, 5):
        assert same(
            inline, list(run_passes(spec, RunOptions(address=ray_cluster, nodes_per_actor=packed), pool=pool))
        )


def test_clones_of_a_snapshot_are_the_same_on_ray(ray_cluster: str, pool: ActorPool) -> None:
    """Two captured processes; the second one has inherited ten pages, and writes half of them later."""
    pages = np.arange(30)
    written = pages % 4 == 0
    moments = tuple(
        CapturedMoment(pages, np.uint64(n) + pages.astype(np.uint64) // np.uint64(2), pages > 9, written)
        for n in (0, 1)
    )
    mapping = CapturedMapping("", 0, 30, advised=True)
    inherited = np.arange(20, 30)
    outside = OutsideMappers(inherited[:1], np.array([3]))
    parent = CapturedProcess("captured", (mapping,), moments, 0, SharedFrames.none(), outside)
    shared = SharedFrames(np.zeros(10, np.int32), inherited, inherited)
    child = replace(parent, shared=shared, outside=OutsideMappers.none())
    snapshots = {"s": CapturedPages((parent, child), (0.0, 1e-6))}
    layout = CapturedLayout((0, 0), (True, True), (0.0,), (0.0, 0.0))
    spec = replace(SPEC, processes=(ProcessSpec("rank", 11, (), snapshot="s", layout=layout),))
    inline = list(run_passes(spec, INLINE, snapshots=snapshots))
    assert inline[-1].nodes["pages_mapped"].sum() == 11 * 30
    for packed in (1, 2):
        options = RunOptions(address=ray_cluster, nodes_per_actor=packed)
        assert same(inline, list(run_passes(spec, options, snapshots=snapshots, pool=pool)))


MIGRATION = CompactionSpec(
    5,
    2048,
    (
        DriverSpec("swap", "zram", 0.5, 0.7, (("object_size", 1300),)),
        DriverSpec("buffers", "gpu", 0.2, 0.5, (("busy", 0.3),)),
    ),
    unmovable=0.03,
    compactors=3,
    batch=8,
    turn=20,
)
COMPACTED = replace(SPEC, machine=MachineSpec(5, 2048, ring(5)), passes=3, migration=MIGRATION)


def test_compaction_is_the_same_however_many_actors_drive_it(ray_cluster: str, pool: ActorPool) -> None:
    inline = list(run_passes(COMPACTED, INLINE))
    assert sum(r.by_driver["ksm"].moved for result in inline for r in result.compaction) > 20
    for packed, migration_actors in ((1, 1), (2, 4), (5, 2)):
        made = list(
            run_passes(
                COMPACTED,
                RunOptions(address=ray_cluster, nodes_per_actor=packed, migration_actors=migration_actors),
                pool=pool,
            )
        )
        assert same(inline, made)
        assert [repr(a.compaction) for a in made] == [repr(b.compaction) for b in inline]


def test_much_that_is_sent_is_the_same(ray_cluster: str, pool: ActorPool) -> None:
    """More than comes with answers, to actors of two groups; as mail, in fewer bytes."""
    spec = spread_out(5, 1 << 17, 2)
    inline = list(run_passes(spec, INLINE))
    sent = inline[1].nodes["bytes_sent"]
    assert sent.min() > LITTLE_MAIL
    mail = {}
    for packed in (1, 2, 5):
        made = list(run_passes(spec, RunOptions(address=ray_cluster, nodes_per_actor=packed), pool=pool))
        assert same(inline, made)
        mail[packed] = made[1].mail_bytes
    assert 0 == mail[5] < mail[2] < mail[1] < 0.65 * sent.sum()


def test_frames_move_between_nodes_as_in_one_process(ray_cluster: str, pool: ActorPool) -> None:
    kinds = (("nearer", 2), ("drain", 2), ("even-out", 3), ("nearer", 3))
    relocations = tuple(
        RelocationSpec(kind, (1,) if kind == "drain" else (), after_pass=after) for kind, after in kinds
    )
    spec = replace(COMPACTED, relocations=relocations)
    inline = list(run_passes(spec, INLINE))
    moved = [done.pages.sum() for result in inline for done in result.relocated]
    assert all(moved)
    made = list(run_passes(spec, RunOptions(address=ray_cluster, nodes_per_actor=2), pool=pool))
    assert same(inline, made)
    assert [repr(a.relocated) for a in made] == [repr(b.relocated) for b in inline]


def test_events_tell_of_actors_and_passes(ray_cluster: str) -> None:
    events: list[Event] = []
    results = list(
        run_passes(replace(SPEC, passes=2), RunOptions(address=ray_cluster), on_event=events.append)
    )
    assert [e for e in events if isinstance(e, ActorsStarting)][-1] == ActorsStarting(5, 5)
    assert [e.number for e in events if isinstance(e, PassStarted)] == [1, 2]
    done = [e.result for e in events if isinstance(e, PassDone)]
    # The census of the last pass comes after its event.
    assert [result.nodes for result in done] == [result.nodes for result in results]
    assert [result.census is None for result in results] == [True, False]


@pytest.mark.parametrize("end", [{"passes": None, "seconds": 0.5}, {"passes": 40, "tolerance": 0.01}])
def test_a_run_with_an_open_end_ends_as_inline(
    ray_cluster: str, pool: ActorPool, end: dict[str, Any]
) -> None:
    spec = replace(SPEC, **end)
    inline = list(run_passes(spec, INLINE))
    events: list[Event] = []
    made = list(
        run_passes(
            spec, RunOptions(address=ray_cluster, nodes_per_actor=3), pool=pool, on_event=events.append
        )
    )
    assert same(inline, made)
    assert [e.total for e in events if isinstance(e, PassStarted)] == [None] * len(inline)


def test_the_coordinator_runs_no_pass_after_the_last(ray_cluster: str) -> None:
    with closing(ActorPool()) as pool:
        coordinator = ray.remote(num_cpus=0)(CoordinatorActor).remote()
        (actor,) = pool.actors(1)
        nodes = list(range(SPEC.machine.nodes))
        spec = replace(SPEC, passes=None, seconds=1e-6)
        ray.get(coordinator.start.remote(spec, [ray.put({})], [nodes], [actor], pool.machines(1), 0))
        first, second = ray.get([coordinator.run_pass.remote() for _ in range(2)])
        assert (first.number, second) == (1, None)
        ray.kill(coordinator)


def test_node_actors_spread_over_the_cluster_and_leave_it_running(ray_cluster: str) -> None:
    with closing(ActorPool()) as pool:
        places = [
            actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
            for actor in pool.actors(5)
        ]
        assert len(set(ray.get(places))) == 3
    assert sum(node["Alive"] for node in ray.nodes()) == 3


def test_actors_are_shared_out_by_cpus() -> None:
    assert machine_of_actors(6, [2, 2, 2]) == [0, 0, 1, 1, 2, 2]
    assert machine_of_actors(4, [0, 1, 3]) == [1, 2, 2, 2]
    assert machine_of_actors(2, [0, 0]) == [0, 1]
    assert machine_of_actors(2, [2, 2, 2, 2]) == [1, 3]
    assert machine_of_actors(2, [2, 2, 2, 2], 0.25) == [2, 0]
    assert node_blocks(7, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert node_ranges([0, 0, 1, 2, 2]) == [(0, 2), (2, 3), (3, 5)]


def test_a_repeated_step_changes_nothing(ray_cluster: str) -> None:
    one = replace(SPEC, machine=MachineSpec(1, 800, ring(1)))
    with closing(ActorPool()) as pool:
        (actor,) = pool.actors(1)
        ray.get(actor.take.remote([0], [0], [0], one, {}))

        def step(number: int, command: c.Command) -> list[Report]:
            packed = pickle.dumps(command)
            reports: list[Report] = pickle.loads(ray.get(actor.step.remote(number, packed, [0], {})))[0]
            return reports

        step(1, c.NewProcess(0))
        step(2, c.Map(0, 10, 4, PolicySpec()))
        write = c.Write(0, np.arange(10, 14), np.arange(4, dtype=np.uint64))
        assert [step(3, write)[0].to for _ in range(3)] == [()] * 3
        assert step(4, c.Collect())[0].answer.counts["pages_written"] == 4


def test_an_error_of_the_simulation_comes_out_of_the_actors_as_itself(
    ray_cluster: str, pool: ActorPool
) -> None:
    small = replace(SPEC, machine=MachineSpec(5, 100, ring(5)))
    with pytest.raises(SimulationError, match="out of memory: a process of node"):
        list(run_passes(small, RunOptions(address=ray_cluster), pool=pool))


def collect_forever(fabric: Fabric) -> None:
    while True:  # a busy machine takes its time to kill an actor
        fabric.superstep(c.Collect())


def test_a_dead_actor_is_said_in_one_line(ray_cluster: str) -> None:
    with closing(ActorPool()) as pool:
        fabric = pool.fabric(SPEC, 1)
        fabric.superstep(c.Collect())
        ray.kill(pool.actors(5)[2])
        with pytest.raises(SimulationError, match=r"a node actor on .* died"):
            collect_forever(fabric)
