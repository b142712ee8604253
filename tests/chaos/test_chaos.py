"""The short form: one death of each kind that needs no cluster, on runs of a few seconds."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.commands import SCENARIOS, scenario, undisturbed
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
