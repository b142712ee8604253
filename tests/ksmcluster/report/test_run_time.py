"""What is said of a run's time: before it, and after it how it would have been faster."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from actors.run_options import INLINE, ON_RAY, RunOptions
from ksmcluster.config import Overrides, load
from ksmcluster.report.run_time import DoneRun, estimated, faster, plan
from tests.ksmcluster.conftest import Run, result_of


def test_the_plan_of_a_run_names_what_happens_how_long_it_takes_and_a_faster_way() -> None:
    assert re.fullmatch(
        r"64 nodes, 262,144 pages, 6 passes, on 64 Ray actors: about \d+ s on 2 cores, "
        r"or \d\.\d s with --engine inline",
        plan(load("default"), ON_RAY, cores=2),
    )
    assert re.fullmatch(
        r"1 node, 4,096 pages, 6 passes, in this process: about 1\.0 s on 1 core",
        plan(load("default", Overrides(nodes=1)), INLINE, cores=1),
    )


def test_what_is_done_takes_no_time() -> None:
    scenario = load("default", Overrides(nodes=8, passes=400))
    lines = [plan(scenario, INLINE, 1, done) for done in (0, 300)]
    assert lines[1].startswith("8 nodes, 32,768 pages, 400 passes, after pass 300, in this process: about ")
    whole, rest = (float(re.search(r"about ([\d.]+) s", line)[1]) for line in lines)  # type: ignore[index]
    assert whole / 5 < rest < whole / 3


@pytest.mark.parametrize(
    ("end", "until"),
    [
        (Overrides(seconds=9.0), "until 9.0 s of simulated time"),
        (Overrides(until="converged"), "until it has converged"),
    ],
)
def test_no_time_is_promised_where_the_end_is_open(end: Overrides, until: str) -> None:
    scenario = load("default", end)
    line = f"64 nodes, 262,144 pages, {until}, on 8 Ray actors"
    assert plan(scenario, RunOptions(nodes_per_actor=8), cores=2) == line


def test_nothing_is_known_of_the_cores_of_a_cluster() -> None:
    assert plan(load("tiny"), RunOptions(address="head:6379"), cores=2).endswith("on 2 Ray actors")


def test_more_actors_than_cores_take_longer_and_more_cores_less() -> None:
    times = [estimated(1 << 18, 6, actors, 2) for actors in (0, 2, 8, 64)]
    assert times == sorted(times)
    assert estimated(1 << 18, 6, 64, 64) < estimated(1 << 18, 6, 64, 2)


def test_ways_to_be_faster() -> None:
    run = DoneRun(
        nodes=64, actors=64, cores=2, pages=1 << 18, passes=6, start_seconds=57.0, wall_seconds=60.0
    )
    inline, packed = faster(run)
    found = re.fullmatch(r"--engine inline: about (\d+) times as fast", inline)
    # As the plan says: actors take all the time.
    assert found
    assert float(found[1]) == pytest.approx(60 / estimated(1 << 18, 6, 0, 2), rel=0.1)
    assert packed.startswith("--nodes-per-actor 32: about ")
    assert list(faster(run._replace(cores=64))) == []
    # Where passes take most of the time, one process would take longer.
    assert not any("inline" in way for way in faster(run._replace(start_seconds=10.0)))


def test_the_report_tells_of_them() -> None:
    result = result_of(load("default"))
    assert "the same, faster" not in str(result)
    timing = {**result.provenance["timing"], "cores": 2}
    crowded = replace(result, provenance={**result.provenance, "timing": timing})
    assert re.search(r"the same, faster +--engine inline: about [\d.]+ times as fast\n", str(crowded))


def test_the_plan_comes_first(run: Run) -> None:
    ran = run("simulate", "tiny", "--engine", "inline")
    assert ran.err.splitlines()[0].startswith("2 nodes, 632 pages, 4 passes, in this process: about ")
    assert run("simulate", "tiny", "--engine", "inline", "--quiet").err == ""
