"""`ksmcluster resume`: the same result from any checkpoint, or a line that says why there is none."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import pytest

import ksmcluster
from cluster.machine.pass_result import CheckpointWritten, Event
from ksmcluster import Overrides
from ksmcluster.config import load_either
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.result import Result
from tests.actors.checkpoint.forged import rewrite
from tests.ksmcluster.conftest import Run
from tests.ksmcluster.snapshot.test_load import huge_snapshot, small, snapshot, whole

HUGE = """
simulation = { passes = 4 }
machine = { nodes = 4, memory_per_node = "16MiB" }
ksm = { kernel = "6.18", pages_to_scan = 500 }

[[process]]
name = "guest"
per_node = 2

[[process.region]]
name = "image"
size = "1024 pages"
model = "replicated"
huge_pages = 0.5

[[process.region]]
name = "own"
size = "512 pages"
model = "unique"
huge_pages = 1.0
"""
MIGRATION = """
[migration]
order = 4
attempts = 20

[[migration.relocate]]
kind = "even-out"
after_pass = 2

[[driver]]
name = "swap"
kind = "zram"
share = 0.2
discard = 0.5
settings = { object_size = 1360 }
"""
SMALL = ("machine.nodes=2", "machine.memory_per_node=16MiB", "migration.turn=400")
INLINE = ("--engine", "inline", "--quiet")


class StoppedError(Exception):
    """The run is killed here."""


def scenario(name: str, folder: Path) -> str:
    """Return a scenario with this name: one that is shipped, a file, or a snapshot."""
    match name:
        case "snapshot":
            moments = [[[(page, -1, 0, 0) for page in pages] * 50] * 2 for pages in ("abc", "abd", "eeb")]
            return str(snapshot(folder / "snapshot", *moments, interval=2.0))
        case "huge snapshot":
            memories = [*whole(0), *whole(1), *small(9000, 30)], [*whole(0), *small(9100, 40)]
            return str(huge_snapshot(folder / "snapshot", *memories, same=range(512, 600)))
        case "huge" | "huge, migration":
            (folder / "scenario.toml").write_text(HUGE + MIGRATION * ("migration" in name))
            return str(folder / "scenario.toml")
    return name


def interrupted(name: str, folder: Path, after: int, *settings: str) -> Result | CompactionResult:
    """Write checkpoints up to this step to folder/checkpoints; return the result of the undisturbed run."""
    config = load_either(scenario(name, folder), Overrides(settings=settings))
    command = ksmcluster.simulate if isinstance(config, ksmcluster.Scenario) else ksmcluster.compact

    def progress(event: Event) -> None:
        if isinstance(event, CheckpointWritten) and event.steps == after:
            raise StoppedError

    directory = str(folder / "checkpoints")
    with pytest.raises(StoppedError):
        command(config, engine="inline", checkpoint=directory, checkpoint_every="1p", progress=progress)
    return command(config, engine="inline")


@pytest.mark.parametrize(
    ("name", "after", "settings"),
    [
        ("tiny", 2, ()),
        ("snapshot", 2, ("simulation.passes=5",)),
        ("huge snapshot", 1, ("simulation.passes=3",)),
        ("huge", 2, ()),
        ("huge, migration", 1, ()),
        ("huge, migration", 3, ()),
        ("compaction-zram", 5, SMALL),
    ],
)
def test_a_resumed_run_writes_the_same(
    run: Run, tmp_path: Path, name: str, after: int, settings: tuple[str, ...]
) -> None:
    interrupted(name, tmp_path, after, *settings).save(tmp_path / "undisturbed")
    ran = run("resume", str(tmp_path / "checkpoints"), "--output", str(tmp_path / "resumed"), *INLINE)
    assert ran.code == 0, ran.err
    names = {path.name for path in (tmp_path / "undisturbed").iterdir()} - {"provenance.json"}
    assert names == {path.name for path in (tmp_path / "resumed").iterdir()} - {"provenance.json"}
    same, *_ = filecmp.cmpfiles(tmp_path / "undisturbed", tmp_path / "resumed", names, shallow=False)
    assert set(same) == names


@pytest.mark.parametrize(
    ("name", "step", "settings"), [("tiny", "pass", ()), ("compaction-zram", "round", SMALL)]
)
@pytest.mark.parametrize("file", ["manifest.json", "node-1.arrays"])
def test_a_damaged_checkpoint_is_passed_over(
    run: Run, tmp_path: Path, name: str, step: str, settings: tuple[str, ...], file: str
) -> None:
    undisturbed = interrupted(name, tmp_path, 3, *settings)
    damaged = tmp_path / "checkpoints" / "step-000003" / file
    damaged.write_bytes(damaged.read_bytes()[:-30])
    directory = str(tmp_path / "checkpoints")
    ran = run("resume", directory, "--engine", "inline", "--checkpoint-every", "1p", "--json")
    assert (ran.code, ran.out) == (0, undisturbed.summary_json())
    lines = [line for line in ran.err.splitlines() if str(damaged) in line]
    assert len(lines) == 1
    assert lines[0].endswith("; continuing from the previous checkpoint")
    assert f"checkpoint after {step} 3: " in ran.err
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / file).unlink()
    ran = run("resume", directory, *INLINE)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("engine", ["inline", "ray"])
@pytest.mark.parametrize(("name", "settings"), [("tiny", ()), ("compaction-zram", SMALL)])
def test_a_forged_checkpoint_is_refused_in_one_line(
    run: Run, tmp_path: Path, name: str, settings: tuple[str, ...], engine: str
) -> None:
    """Its digests are right, and a node has no attribute that it ought to have, but another one."""
    interrupted(name, tmp_path, 3, *settings)
    folder = tmp_path / "checkpoints" / "step-000003"
    document = json.loads((folder / "node-0.json").read_text())
    document["root"][3] = {"__class__": ["l", 9, []]}
    rewrite(folder, "node-0.json", document)
    ran = run("resume", str(tmp_path / "checkpoints"), "--engine", engine, "--quiet")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert ran.err.startswith(f"error: {folder}: this checkpoint is not one that ksmcluster wrote (")


def test_checkpoints_of_something_else_are_refused(run: Run, tmp_path: Path) -> None:
    interrupted("tiny", tmp_path, 2)
    directory = tmp_path / "checkpoints"
    option = ("--checkpoint", str(directory))
    ran = run("simulate", "tiny", "--seed", "9", *option, *INLINE)
    assert ran == (
        2,
        "",
        f"error: {directory}: it has checkpoints of another scenario; choose another directory\n",
    )
    ran = run("compact", *option, *INLINE)
    text = "it has checkpoints of `ksmcluster simulate`; choose another directory"
    assert ran == (2, "", f"error: {directory}: {text}\n")
    ran = run("resume", str(tmp_path), *INLINE)
    assert ran == (
        2,
        "",
        f"error: {tmp_path}: no complete checkpoint found; give the directory that was given to --checkpoint "
        "or, if the run ended before its first checkpoint, repeat the first command\n",
    )


@pytest.mark.parametrize(
    "arguments", [("resume",), ("simulate", "tiny", "--checkpoint"), ("compact", "--checkpoint")]
)
def test_checkpoints_of_another_version_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("ksmcluster.api.checkpoints.__version__", "0.0.1")
    interrupted("tiny", tmp_path, 2)
    monkeypatch.undo()
    ran = run(*arguments, str(tmp_path / "checkpoints"), *INLINE)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "checkpoints: its checkpoints are from ksmcluster 0.0.1, but this is" in ran.err
