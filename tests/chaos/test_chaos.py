"""The short form: one death of each kind that needs no cluster, on runs of a few seconds."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random

import pytest

from tests.chaos.commands import ACTORS, SCENARIOS, Command, differences, scenario, undisturbed
from tests.chaos.disturbances import KINDS, Trial

PASSES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the undisturbed output of each command."""
    folder = tmp_path_factory.mktemp("chaos")
    for command in SCENARIOS:
        undisturbed([*scenario(command, PASSES), "--engine", "inline"], folder / command)
    return folder


@pytest.mark.parametrize(
    ("kind", "command"),
    [("node", "simulate"), ("coordinator", "simulate"), ("memory", "compact"), ("command", "simulate")],
)
def test_a_disturbed_run_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, kind: str, command: str
) -> None:
    expected = folder / command / "output"
    trial = Trial(scenario(command, PASSES), 4.0, expected, tmp_path / kind, Random(18))
    assert KINDS[kind](trial).wrong == ""


@pytest.fixture
def compacting(tmp_path: Path) -> Command:
    """Return a `compact` whose migration actors are at work; it takes many seconds."""
    options = ["--nodes-per-actor", "2", "--migration-actors", "2", "--max-failures", "9"]
    stall = ["--stall-timeout", "10", "--output", str(tmp_path / "output")]
    command = Command([*scenario("compact", 4 * PASSES), *options, *stall], tmp_path)
    calls = [f"{ACTORS['migration']}.{name}" for name in ("take", "step")]
    assert command.wait(lambda: len(command.of_kind(calls)) > 0)
    return command


def test_the_machine_dies_while_migration_actors_are_replaced(tmp_path: Path, compacting: Command) -> None:
    """New ones would wait for a machine for ever."""
    undisturbed([*scenario("compact", 4 * PASSES), "--engine", "inline"], tmp_path / "inline")
    for one in compacting.of_kind([ACTORS["migration"]]):
        one.kill()
    time.sleep(0.3)  # The new ones are being started.
    for one in compacting.of_kind(["raylet/raylet"]):
        one.kill()
    assert compacting.end() == 0
    assert differences(tmp_path / "output", tmp_path / "inline" / "output") == []


def test_the_head_stops_while_actors_are_waited_for(tmp_path: Path, compacting: Command) -> None:
    """Ray's own calls to it would heed no signal."""
    for name in ("gcs/gcs_server", ACTORS["memory"]):
        for one in compacting.of_kind([name]):
            one.send(signal.SIGSTOP)
    assert compacting.end() == 1
    last = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert last == "error: the head of the Ray cluster is lost: no answer within 10 s"
