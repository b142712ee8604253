"""[migration] in scenarios of `ksmcluster simulate`: what it may say, what comes of it, what is printed."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import ksmcluster
from cluster.spec.compaction import CompactionSpec, DriverSpec
from cluster.spec.statistics import NODE_NAMES
from ksmcluster.config import Overrides, load, resolved_toml, to_spec
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run

Golden = Callable[[str, str], None]
SMALL: dict[str, Any] = {
    "machine": {"nodes": 2, "memory_per_node": "8MiB"},
    "migration": {},
    "driver": [{"name": "a", "kind": "balloon", "share": 0.5, "discard": 0.25}],
    "process": [{"name": "p", "count": 1, "region": [{"name": "r", "size": "10 pages", "model": "unique"}]}],
}
STORY = "ksm-compaction"


def message(*sets: str, without: str = "") -> str:
    data = copy.deepcopy(SMALL)
    data.pop(without, None)
    with pytest.raises(UserError) as error:
        load(data, Overrides(settings=sets))
    return str(error.value)


@pytest.fixture(scope="module")
def result() -> Result:
    """Of a real run, but for the time that it took."""
    made = ksmcluster.simulate(load(STORY, Overrides(nodes=3)), engine="inline")
    timing = made.provenance["timing"] | {"engine": "ray", "nodes_per_actor": 1, "migration_actors": 4}
    timing |= {"cores": None}
    timing |= {"wall_seconds": 31.5, "start_seconds": 27.25, "pass_seconds": [0.85] * 5}
    timing |= {"pages_per_second": 18000.0}
    return replace(made, provenance=made.provenance | {"timing": timing})


# Scenarios


def test_defaults_are_those_of_compaction() -> None:
    made = to_spec(load(SMALL)).migration
    assert made == CompactionSpec(2, 2048, (DriverSpec("a", "balloon", 0.5, 0.25),))
    assert to_spec(load("tiny")).migration is None


def test_everything_arrives() -> None:
    sets = (
        "simulation.seed=3",
        "migration={trigger='none', kernel='4.8', mode='async', order=5, attempts=6, compactors=7}",
        "migration.batch=8",
        "migration.turn=9",
        "migration.unmovable=0.1",
        "migration.cost={scan_ns=1.0, attempt_ns=2.0, copy_ns=3.0, mapping_ns=4.0}",
    )
    scenario = load(SMALL, Overrides(settings=sets))
    made = to_spec(scenario).migration
    assert made is not None
    assert (made.seed, made.trigger, made.kernel, made.mode) == (3, "none", "4.8", "async")
    assert (made.order, made.attempts, made.compactors, made.batch, made.turn) == (5, 6, 7, 8, 9)
    assert (made.unmovable, made.cost.scan, made.cost.attempt, made.cost.copy, made.cost.mapping) == (
        0.1,
        1.0,
        2.0,
        3.0,
        4.0,
    )
    assert load(tomllib.loads(resolved_toml(scenario))) == scenario


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("driver[0].name=ksm", '--set driver[0].name: "ksm" is reserved for pages of processes'),
        ("driver[0].kind=ballon", "scenario: driver[0]: no driver 'ballon'; give one of balloon, faulty, "),
        ("migration.unmovable=0.6", "scenario: driver: shares and migration.unmovable add up to 1.1 of"),
        (
            "migration.trigger=often",
            '--set migration.trigger: "often" is not one of "compact_memory", "proactive", "none"',
        ),
        ("migration.lru=0.5", "--set migration.lru: unknown key"),
        ("machine.memory_per_node=9MiB", "--set machine.memory_per_node: must be a multiple of 2MiB"),
        ("driver=3", "--set driver: must be a list, not 3"),
    ],
)
def test_mistakes_are_told_in_one_line(setting: str, text: str) -> None:
    said = message(setting)
    assert text in said
    assert "\n" not in said


def test_drivers_need_the_table() -> None:
    assert message(without="migration") == "scenario: driver: has no meaning without a table [migration]"


def test_nothing_may_be_left_for_processes() -> None:
    said = message("driver[0]={name='a', kind='gpu', share=1, discard=0.0}")
    assert said == "scenario: driver: no memory is left for the processes"


def test_room_is_what_drivers_leave() -> None:
    """Of 2 * 2048 pages the balloon keeps 3/8."""
    load(SMALL, Overrides(settings=("process[0].count=256",)))
    assert message("process[0].count=257") == (
        "scenario: machine.memory_per_node: too little for the machine: 2570 pages are mapped before any "
        "merging, but only 2560 fit; at least 10MiB is needed"
    )


def test_scaled_memory_is_whole_pageblocks() -> None:
    """4000 pages and an eighth are 5/8 of what it takes."""
    scenario = load(SMALL, Overrides(pages_per_node=4000))
    assert scenario.machine.memory_per_node == 15 * 512


def test_the_story() -> None:
    """No huge page before ksmd has merged, none by moving guests' pages alone, all by moving everything."""
    scenario = load(STORY)
    assert (scenario.machine.nodes, scenario.simulation.passes) == (64, 5)
    migration = ksmcluster.simulate(load(STORY, Overrides(nodes=4)), engine="inline").summary["migration"]
    assert migration["requested"] == 16
    obtained = migration["by_pass"]["obtained"]
    assert (obtained["before"][0], obtained["movable_on"][0]) == (0, 0)
    assert [obtained[state][1] for state in ("before", "movable_off", "movable_on")] == [0, 0, 16]
    assert obtained["movable_on"][-1] == 16
    assert migration["by_pass"]["ksm_pages_moved"][1] > 50


# Results


def test_report(result: Result, golden: Golden) -> None:
    golden("report-migration.txt", f"{result}\n")
    assert max(map(len, str(result).splitlines())) <= 80


def test_summary(result: Result, golden: Golden) -> None:
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in result.summary["migration"].items()]
    golden("migration.txt", "".join(lines))


def test_numbers_agree(result: Result) -> None:
    migration, by_pass = result.summary["migration"], result.summary["migration"]["by_pass"]
    moved = {name: counts["moved"] for name, counts in migration["by_driver"].items()}
    assert list(moved) == ["swap", "buffers", "anon", "ksm"]
    assert sum(moved.values()) == sum(by_pass["pages_moved"]) == migration["vmstat"]["pgmigrate_success"]
    assert moved["ksm"] == sum(by_pass["ksm_pages_moved"])
    assert migration["bytes_moved"] == 4096 * sum(moved.values())
    assert migration["simulated_seconds"] == sum(by_pass["simulated_seconds"]) > 0
    sizes = 1 << np.arange(11)
    for state, index in by_pass["unusable_free_index"].items():
        free = np.array(by_pass["free_blocks"][state])
        assert (free @ sizes).tolist() == result.by_node("frames_free").sum(axis=1).tolist()
        assert index == ((free[:, :9] @ sizes[:9]) * 1000 // (free @ sizes)).tolist()


def test_a_sharing_limit_bounds_the_longest_walk(result: Result) -> None:
    """With 16 mappings a frame no walk is longer; without a limit the most popular frame decides."""
    limited = load(STORY, Overrides(nodes=3, settings=("ksm.max_page_sharing=16",)))
    short = ksmcluster.simulate(limited, engine="inline").summary["migration"]["rmap_walks"]
    long = result.summary["migration"]["rmap_walks"]
    assert short["longest"] == 16 < long["longest"] <= 256
    assert short["longest_seconds"] == pytest.approx(16 * 900e-9)
    for walks in (short, long):
        assert walks["mean"] == walks["mappings"] / walks["number"]
        assert walks["mean_seconds"] == pytest.approx(walks["mean"] * 900e-9)
    assert str(result).count("rmap walks of KSM") == 1


def test_columns(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "passes.parquet")
    assert table.column_names[: 2 + len(NODE_NAMES)] == ["pass", "node", *NODE_NAMES]
    columns = {name: table[name].to_numpy().reshape(5, 3) for name in table.column_names}
    by_pass = result.summary["migration"]["by_pass"]
    assert columns["ksm.moved"].sum(axis=1).tolist() == by_pass["ksm_pages_moved"]
    assert columns["obtained_movable_on"].sum(axis=1).tolist() == by_pass["obtained"]["movable_on"]
    nines = columns["free_movable_on_9"] + 2 * columns["free_movable_on_10"]
    assert nines.sum(axis=1).tolist() == by_pass["available"]["movable_on"]
    free = [columns[f"free_before_{order}"].sum(axis=1).tolist() for order in range(11)]
    assert np.transpose(free).tolist() == by_pass["free_blocks"]["before"]
    seconds = (columns["compaction_ns"].max(axis=1) / 1e9).tolist()
    assert seconds == pytest.approx(by_pass["simulated_seconds"], abs=1e-9)
    assert load(tmp_path / "out" / "config.toml") == result.config


def test_without_the_table_nothing_is_said_of_it() -> None:
    made = ksmcluster.simulate("tiny", engine="inline")
    assert "migration" not in made.summary
    assert list(made.passes) == ["pass", "node", *NODE_NAMES]
    assert "migration_actors" not in made.provenance["timing"]
    assert "ompaction" not in str(made)


def test_migration_actors(run: Run) -> None:
    ran = run("simulate", STORY, "--migration-actors", "0")
    assert (ran.code, ran.out) == (2, "")
    assert "error: --migration-actors: must be at least 1" in ran.err
