"""Runs that have the same actors, one after the other, give what each gives alone; also side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import ksmcluster
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from ksmcluster.config import Overrides, load, to_spec
from ksmcluster.experiments.sweeps import stored
from ksmcluster.experiments.sweeps.axes import axes_of, make_points
from ksmcluster.experiments.sweeps.on_ray import fitting
from ksmcluster.experiments.sweeps.plan import make_plan
from ksmcluster.experiments.sweeps.run_one import RunDone
from tests.actors.test_killed import processes
from tests.ksmcluster.experiments.test_sweep import gone, started, wait_for_line

COMPACTED = to_spec(load("ksm-compaction", Overrides(nodes=3, passes=2)))
SPECS = {
    "four nodes": to_spec(load("tiny", Overrides(nodes=4))),
    "with compaction": COMPACTED,
    "fewer nodes": to_spec(load("tiny", Overrides(nodes=2, seed=7))),
    "with compaction, again": COMPACTED,
}


def outcome(results: list[PassResult]) -> list[object]:
    return [
        ({name: column.tolist() for name, column in r.nodes.items()}, r.simulated_seconds, repr(r.compaction))
        for r in results
    ]


def test_runs_with_the_same_actors_give_what_inline_gives(ray_cluster: str) -> None:
    options = RunOptions(address=ray_cluster)
    with closing(ActorPool()) as pool:
        coordinators = set()
        for spec in SPECS.values():
            made = list(run_passes(spec, options, pool=pool))
            assert outcome(made) == outcome(list(run_passes(spec, INLINE)))
            coordinators.add(pool.coordinator())
            handles = pool.actors(4)
            assert pool.actors(2) == handles[:2]
        assert len(coordinators) == 1
        assert len(pool.machines(100)) == 4


def test_a_run_that_is_given_up_leaves_the_pool_usable(ray_cluster: str) -> None:
    options = RunOptions(address=ray_cluster)
    spec = SPECS["four nodes"]
    with closing(ActorPool()) as pool:
        passes = run_passes(spec, options, pool=pool)
        next(passes)
        passes.close()  # type: ignore[attr-defined]
        assert pool.machines(100) == []
        made = list(run_passes(spec, options, pool=pool))
        assert outcome(made) == outcome(list(run_passes(spec, INLINE)))


def test_a_sweep_on_ray_gives_what_it_gives_inline(ray_cluster: str) -> None:
    vary = {"nodes": [2, 3], "ksm.max_page_sharing": [2, 256]}
    inline = ksmcluster.sweep("tiny", vary)
    on_ray = ksmcluster.sweep("tiny", vary, engine="ray", address=ray_cluster)
    assert on_ray.to_arrow().equals(inline.to_arrow())
    both = ksmcluster.sweep("tiny", {"engine": ["inline", "ray"]}, address=ray_cluster)
    first, second = both.records
    assert first.figures == second.figures


def test_compact_on_ray(ray_cluster: str) -> None:
    small = Overrides(2, settings=("machine.memory_per_node=16MiB",))
    vary = {"migration.mode": ["async", "sync"]}
    inline = ksmcluster.sweep("compaction-zram", vary, overrides=small)
    on_ray = ksmcluster.sweep("compaction-zram", vary, overrides=small, engine="ray", address=ray_cluster)
    assert on_ray.failed == []
    assert on_ray.to_arrow().equals(inline.to_arrow())


# Side by side

SCANNED = {"ksm.pages_to_scan": "100..3200x2"}


@pytest.fixture(scope="module")
def other_cluster(ray_cluster: str) -> Iterator[str]:
    """The address of a second head, on the same machine as the first."""
    from ray.cluster_utils import Cluster

    other = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    assert other.address != ray_cluster
    yield other.address
    other.shutdown()  # type: ignore[no-untyped-call]


def clients() -> int:
    """How many programs the first cluster has had."""
    from ray._private.state import state

    return len(state.job_table())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("scenario", "values"), [("tiny", "100..3200x2"), ("ksm-compaction", "100,3200")])
def test_side_by_side_gives_the_same(ray_cluster: str, scenario: str, values: str) -> None:
    small, vary = Overrides(2, passes=2), {"ksm.pages_to_scan": values}
    inline = ksmcluster.sweep(scenario, vary, overrides=small)
    before = clients()
    on_ray = ksmcluster.sweep(scenario, vary, overrides=small, engine="ray", address=ray_cluster, jobs=2)
    assert on_ray.failed == []
    assert on_ray.to_arrow().equals(inline.to_arrow())
    assert clients() == before + 2


def test_compact_side_by_side(ray_cluster: str) -> None:
    small = Overrides(2, settings=("machine.memory_per_node=16MiB",))
    vary = {"migration.mode": ["async", "sync"]}
    inline = ksmcluster.sweep("compaction-zram", vary, overrides=small)
    on_ray = ksmcluster.sweep(
        "compaction-zram", vary, overrides=small, engine="ray", address=ray_cluster, jobs=2
    )
    assert on_ray.to_arrow().equals(inline.to_arrow())


def test_side_by_side_on_the_second_of_two_heads(
    ray_cluster: str, other_cluster: str, tmp_path: Path
) -> None:
    before = clients()
    options = ("--quiet", "--engine", "ray", "--jobs", "2")
    for name, more in {"joined": ("--address", other_cluster), "own": ()}.items():
        with started(tmp_path / name, *options, *more) as process:
            _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    assert clients() == before
    with started(tmp_path / "inline", "--quiet") as process:
        assert process.wait() == 0
    tables = {(tmp_path / name / stored.TABLE).read_bytes() for name in ("joined", "own", "inline")}
    assert len(tables) == 1


@pytest.mark.parametrize(
    ("nodes", "nodes_per_actor", "memory", "expected"),
    [(1, 1, "16MiB", 6), (3, 1, "16MiB", 2), (6, 3, "16MiB", 3), (64, 1, "16MiB", 1), (1, 1, "8TiB", 1)],
)
def test_as_many_as_cores_and_memory_allow(
    ray_cluster: str, nodes: int, nodes_per_actor: int, memory: str, expected: int
) -> None:
    """The cluster has six cores."""
    sized = Overrides(nodes, settings=(f"machine.memory_per_node={memory}",))
    points = make_points(axes_of({}), zipped=False)
    plan = make_plan("tiny", points, sized, RunOptions(nodes_per_actor=nodes_per_actor))
    assert fitting([plan.task(key) for key in plan.keys]) == expected


@pytest.mark.parametrize("max_failures", [0, 3])
def test_actors_that_die_cost_at_most_their_point(
    ray_cluster: str, tmp_path: Path, max_failures: int
) -> None:
    """All actors are killed when the first run is done, that of another run under way among them."""
    killed: list[int] = []

    def listener(done: RunDone) -> None:
        if done.done == 1:
            killed.extend(processes("NodeActor"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    def run(**more: Any) -> ksmcluster.SweepResult:
        return ksmcluster.sweep(
            "tiny", SCANNED, passes=30, engine="ray", address=ray_cluster, output=tmp_path / "out", **more
        )

    found = run(jobs=2, max_failures=max_failures, progress=listener)
    assert killed
    if max_failures:
        assert found.failed == []
    else:
        assert 1 <= len(found.failed) <= 2
        assert all("died: its process was killed" in record.error for record in found.failed)
    inline = ksmcluster.sweep("tiny", SCANNED, passes=30)
    assert run(resume=True).to_arrow().equals(inline.to_arrow())


def ours_have_ended(group: int) -> None:
    """Wait until a killed program has left nothing but Ray's two agents; end these, as Ray does not."""
    agents = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    for _ in range(300):
        listed = subprocess.run(["ps", "-o", "args=", "-g", str(group)], capture_output=True, text=True)
        if {line.strip() for line in listed.stdout.splitlines()} <= agents:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"left: {listed.stdout}")
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_done_before_a_kill_on_ray_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    out, options = tmp_path / "out", ("--engine", "ray", "--jobs", "2")
    with started(out, *options) as process:
        wait_for_line(process, "run 3 of 12")
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)
        assert process.wait() == (-9 if number == signal.SIGKILL else 128 + number)
        rest = process.stderr.read() if process.stderr else ""
    done = stored.read_records(out)
    assert 3 <= len(done) < 12
    if number != signal.SIGKILL:
        assert rest.splitlines()[-1].endswith("continue with --resume")
        assert "Traceback" not in rest
    if number == signal.SIGKILL:
        ours_have_ended(process.pid)
    assert gone(process.pid)
    with started(out, "--resume", "--quiet", *options) as process:
        assert process.wait() == 0
    again = stored.read_records(out)
    assert {key: again[key].wall_seconds for key, record in done.items() if not record.error} == {
        key: record.wall_seconds for key, record in done.items() if not record.error
    }
    assert [record.error for record in again.values()] == [""] * 12
