"""Checkpoints are complete or not there, the last two stay, and one that has changed is not read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from actors.checkpoint.directory import latest, new_checkpoint
from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.checkpoint.state_files import DamagedError, UnwritableError, write_state
from cluster.checkpoint.encode import Encoded
from cluster.machine.pass_result import CheckpointDamaged, Event
from cluster.spec.errors import SimulationError

STATE = Encoded({"a": [1, None]}, [np.arange(7, dtype=np.uint16), np.zeros((0, 3)), np.eye(3)])


def write(directory: Path, steps: int) -> None:
    with new_checkpoint(directory, steps, {"name": "run"}) as (folder, files):
        files += write_state(folder, "node-0", STATE)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, 4)
    checkpoint = latest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.steps, checkpoint.run) == (4, {"name": "run"})
    assert checkpoint.is_here()
    read = checkpoint.read("node-0")
    assert read.root == STATE.root
    assert [a.dtype for a in read.arrays] == [a.dtype for a in STATE.arrays]
    assert all(np.array_equal(a, b) for a, b in zip(read.arrays, STATE.arrays, strict=True))
    assert [a.shape for a in read.arrays] == [(7,), (0, 3), (3, 3)]


def test_the_last_two_stay(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for steps in (1, 2, 10, 11):
        write(tmp_path, steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-000011"]
    checkpoint = latest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.steps == 11


def test_a_checkpoint_that_is_interrupted_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt), new_checkpoint(tmp_path, 2, {}) as (folder, files):
        files += write_state(folder, "node-0", STATE)
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_what_was_interrupted_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000002.0123").mkdir()
    (tmp_path / ".step-000002.0123" / "node-0.arrays").write_bytes(b"half")
    write(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_the_one_before_a_damaged_checkpoint_is_the_last(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, {}, Interval())
    for steps in (2, 4, 6):
        write(tmp_path, steps)
    told: list[Event] = []
    last = keeper.latest(told.append)
    assert last is not None
    assert (last.steps, told) == (6, [])
    keeper.pass_over(last, DamagedError("node-0.arrays: the file has changed"))
    last = keeper.latest(told.append)
    assert last is not None
    assert (last.steps, told) == (4, [CheckpointDamaged("node-0.arrays: the file has changed")])
    # The next one takes the place of the damaged one, and of what is before both.
    keeper.write(5, lambda folder: write_state(folder, "node-0", STATE), told.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]
    for folder in tmp_path.iterdir():
        (folder / "manifest.json").write_text("{}")
    with pytest.raises(DamagedError, match="step-000005"):
        keeper.latest(told.append)


def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match="No such file"):
        write(tmp_path / "gone", 1)


@pytest.mark.parametrize("name", ["node-0.json", "node-0.arrays", "manifest.json"])
@pytest.mark.parametrize("change", ["flip", "shorter", "longer", "gone", "text"])
def test_a_file_that_has_changed_is_not_read(tmp_path: Path, name: str, change: str) -> None:
    write(tmp_path, 3)
    path = tmp_path / "step-000003" / name
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 1
    changed = {"shorter": data[:-2], "longer": data + b" x", "text": b"[" * 100_000}.get(change, data)
    path.unlink() if change == "gone" else path.write_bytes(changed)
    with pytest.raises(DamagedError):
        found = latest(tmp_path)
        assert found is not None
        found.read("node-0")


def test_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = tmp_path / "step-000003" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(SimulationError, match="format 99"):
        latest(tmp_path)


def test_intervals_are_times_or_passes() -> None:
    assert Interval.parse("10m") == Interval(seconds=600)
    assert Interval.parse("1.5h") == Interval(seconds=5400)
    assert Interval.parse("90s") == Interval(seconds=90)
    assert Interval.parse("5p") == Interval(steps=5)
    for text in ("", "5", "m", "-1m", "0s", "1.5p", "5 p", "1e3s", "٣s", "9" * 5000 + "s"):
        with pytest.raises(SimulationError, match="--checkpoint-every"):
            Interval.parse(text)
