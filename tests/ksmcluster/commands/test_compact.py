"""`ksmcluster compact`: what it prints and writes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ksmcluster import api
from ksmcluster.config import Overrides, load_compaction
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.loading import load_result
from tests.ksmcluster.conftest import Run

Golden = Callable[[str, str], None]
SMALL = ("--nodes", "2", "--set", "machine.memory_per_node=16MiB", "--engine", "inline", "--quiet")
TIMING = {"engine": "ray", "wall_seconds": 31.5, "start_seconds": 27.25}


@pytest.fixture(scope="module")
def drained() -> CompactionResult:
    settings = ("machine.memory_per_node=16MiB", "machine.topology=ring", "machine.unmovable=0.0002")
    relocate = ("migration.relocate=[{kind='even-out', when='after'}]",)
    config = load_compaction("compaction-drain", Overrides(4, settings=settings + relocate, drain=(1,)))
    made = api.compact(config, engine="inline")
    return replace(made, provenance=made.provenance | {"timing": TIMING})


@pytest.fixture(scope="module")
def result() -> CompactionResult:
    config = load_compaction("compaction-gpu", Overrides(2, settings=("machine.memory_per_node=16MiB",)))
    made = api.compact(config, engine="inline")
    return replace(made, provenance=made.provenance | {"timing": TIMING})


def test_report(result: CompactionResult, golden: Golden) -> None:
    golden("compact.txt", f"{result}\n")
    assert str(result).isascii()
    assert max(map(len, str(result).splitlines())) <= 80


def test_report_of_allocations(golden: Golden) -> None:
    settings = ("machine.memory_per_node=32MiB", "migration.trigger=direct", "migration.attempts=8")
    config = load_compaction("compaction-zram", Overrides(2, settings=settings))
    made = api.compact(config, engine="inline")
    result = replace(made, provenance=made.provenance | {"timing": TIMING})
    golden("compact-direct.txt", f"{result}\n")
    assert result.summary["obtained"]["movable_on"] > result.summary["obtained"]["movable_off"] == 0


def test_report_without_drivers(tmp_path: Path) -> None:
    """Nothing is said of unmovable pages of drivers, in no file, table or picture."""
    settings = ("machine.memory_per_node=16MiB", "driver=[]", "machine.lru=0.9")
    made = api.compact(load_compaction("compaction-gpu", Overrides(2, settings=settings)), engine="inline")
    for part in ("obtained", "available", "free_blocks"):
        assert list(made.summary[part]) == ["before", "movable_on"]
    assert list(made.summary["by_driver"]) == ["lru"]
    assert "driver pages" not in str(made)
    assert "movable" not in str(made)
    assert "4 to" not in repr(made)
    made.save(tmp_path / "out")
    loaded = load_result(tmp_path / "out")
    assert isinstance(loaded, CompactionResult)
    assert loaded.summary == made.summary
    assert not [name for name in loaded.nodes if "movable_off" in name]
    page = loaded._repr_html_()
    assert "unmovable" not in page
    for kind in ("blocks", "obtained"):
        _, words = loaded.plot(kind).axes[0].get_legend_handles_labels()
        assert [word for word in words if word != "requested"] == ["before", "after"]


def test_report_of_kcompactd() -> None:
    settings = ("machine.memory_per_node=32MiB", "migration.trigger=proactive")
    config = load_compaction("compaction-zram", Overrides(2, settings=settings))
    text = str(api.compact(config, engine="inline"))
    assert "kcompactd, proactiveness 20" in text
    assert "Direct compaction" not in text


def test_allocations_on_nodes_that_are_offline() -> None:
    """compaction-drain: what failed was asked of the two nodes without memory, and others have more."""
    config = load_compaction("compaction-drain")
    made = api.compact(config, engine="inline")
    summary = made.summary
    failed = set(np.flatnonzero(made.nodes["obtained_movable_on"] < config.migration.attempts).tolist())
    assert (failed, summary["obtained"]["movable_on"]) == ({5, 6}, 56)
    (line,) = (line for line in str(made).splitlines() if "went offline" in line)
    assert line.split() == ["on", "2", "nodes", "that", "went", "offline", "8"]
    *_, nines, tens = summary["free_blocks"]["movable_on"]
    assert summary["available"] == {"before": 0, "movable_off": 0, "movable_on": nines + 2 * tens}
    assert nines + 2 * tens > 56


def test_what_allocators_keep_is_available() -> None:
    settings = ("machine.memory_per_node=32MiB", "migration.trigger=direct", "migration.attempts=1")
    made = api.compact(load_compaction("compaction-zram", Overrides(2, settings=settings)), engine="inline")
    nines = {name: blocks[9] + 2 * blocks[10] for name, blocks in made.summary["free_blocks"].items()}
    assert made.summary["obtained"]["movable_on"] == 2
    assert made.summary["available"] == {**nines, "movable_on": nines["movable_on"] + 2}


def test_summary(result: CompactionResult, golden: Golden) -> None:
    summary = json.loads(result.summary_json())
    golden("compact.json", json.dumps(summary, indent=2) + "\n")


def test_report_of_what_moved_between_nodes(drained: CompactionResult, golden: Golden) -> None:
    golden("compact-drain.txt", f"{drained}\n")
    assert str(drained).isascii()
    assert max(map(len, str(drained).splitlines())) <= 80


def test_what_moved_between_nodes(drained: CompactionResult, tmp_path: Path) -> None:
    """The same in summary.json, in the tables, and by driver."""
    drained.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    table = pq.read_table(tmp_path / "out" / "relocations.parquet").to_pylist()
    between = summary["bytes_moved_between"]
    assert between == sum(row["bytes"] for row in table)
    assert between == sum(part["bytes"] for part in summary["relocations"])
    assert between == 4096 * sum(counts["moved_away"] for counts in summary["by_driver"].values())
    assert summary["bytes_moved"] == between + summary["bytes_moved_within"]
    even, drain = summary["relocations"]
    assert {(m["from"], m["to"]): m["bytes"] for m in drain["moved"]} == {
        (row["source"], row["target"]): row["bytes"] for row in table if row["kind"] == "drain"
    }
    assert {row["distance"] for row in table} <= {16, 22}
    assert summary["simulated_seconds"] > drain["simulated_seconds"] + even["simulated_seconds"]
    # a page of the kernel holds a pageblock
    (node,) = drain["drained"]
    assert node["stayed"] == [{"owner": "unmovable", "pages": 1, "why": "cannot move"}]
    assert (node["node"], node["offline"], node["pageblocks_offline"]) == (1, False, 7)
    drained.save(tmp_path / "out")


def test_json_is_the_same(run: Run) -> None:
    ran = [run("compact", "--json", *SMALL) for _ in range(2)]
    assert [(r.code, r.err) for r in ran] == [(0, "")] * 2
    assert ran[0].out == ran[1].out


def test_output(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for seed in ("3", "4"):
        ran = run("compact", "--seed", seed, "--json", "--output", str(out), *SMALL)
        assert ran.code == 0
    assert (out / "summary.json").read_text() == ran.out
    summary = json.loads(ran.out)
    table = pq.read_table(out / "nodes.parquet").to_pydict()
    assert table["node"] == [0, 1]
    assert sum(table["swap.moved"]) == summary["by_driver"]["swap"]["moved"]
    assert sum(table["free_movable_on_9"]) == summary["free_blocks"]["movable_on"][9]
    config = load_compaction(tomllib.loads((out / "config.toml").read_text()))
    assert (config.simulation.seed, config.machine.nodes) == (4, 2)


@pytest.mark.parametrize(("proactiveness", "idle"), [(1, True), (100, False)])
def test_kcompactd_with_nothing_to_do_says_so(run: Run, proactiveness: int, idle: bool) -> None:
    knobs = ("migration.trigger=proactive", f"migration.proactiveness={proactiveness}")
    ran = run("compact", "--json", *SMALL, *(word for knob in knobs for word in ("--set", knob)))
    notes = json.loads(ran.out).get("notes", [])
    assert [note.partition(" and ")[0] for note in notes] == (
        ["kcompactd found no node fragmented enough"] if idle else []
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--address auto --engine inline", "error: --address: "),
        ("tiny", "error: tiny.toml: it has [[process]], so it is a scenario of `ksmcluster simulate`"),
        ("gone.toml", "error: there is no file gone.toml"),
        ("--drain 64", "error: --drain: there is no node 64; the last is 63"),
        ("--nodes 0", "error: --nodes: must be at least 1, not 0"),
        ("--set migration.trigger=kcompactd", 'kcompactd\'s compaction is called "proactive"'),
        (
            "compaction-gpu --set driver[0].settings.busy=30",
            "driver[0]: driver 'gpu': busy: must be a number from 0 to 1, not 30",
        ),
        ("compaction-gpu --set driver[0].settings.busy=x", "busy: must be a number from 0 to 1, not 'x'"),
        ("--migration-actors 0", "error: --migration-actors: must be at least 1"),
    ],
)
def test_mistakes(run: Run, arguments: str, text: str) -> None:
    ran = run("compact", *arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


def test_output_is_refused_before_the_simulation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").touch()
    monkeypatch.setattr(api, "compact", lambda *_, **__: pytest.fail("has begun"))
    ran = run("compact", "--output", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: cannot write the results to {tmp_path}: it is not empty")


def test_an_output_of_the_other_command_stays(run: Run, tmp_path: Path) -> None:
    simulated, compacted = tmp_path / "simulated", tmp_path / "compacted"
    run("simulate", "tiny", "--engine", "inline", "--quiet", "--output", str(simulated))
    run("compact", "--output", str(compacted), *SMALL)
    before = (simulated / "summary.json").read_text(), (compacted / "summary.json").read_text()
    assert "it has passes.parquet" in run("compact", "--output", str(simulated), *SMALL).err
    assert "it has nodes.parquet" in run("simulate", "tiny", "--output", str(compacted)).err
    assert ((simulated / "summary.json").read_text(), (compacted / "summary.json").read_text()) == before


def test_where_nothing_can_be_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "compact", lambda *_, **__: pytest.fail("has begun"))
    ran = run("compact", "--output", "/proc/x")
    assert ran.code == 2
    assert "cannot write the results to /proc/x: /proc is not writable: " in ran.err
