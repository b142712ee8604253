"""The short form: one death of each kind that needs no cluster, on runs of a few seconds."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.commands import scenario, simulate
from tests.chaos.disturbances import KINDS, Trial

PASSES = 8


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos") / "undisturbed"
    simulate([*scenario(PASSES), "--engine", "inline"], folder)
    return folder / "output"


@pytest.mark.parametrize("kind", ["node", "coordinator", "command"])
def test_a_disturbed_run_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path, kind: str) -> None:
    trial = Trial(scenario(PASSES), 4.0, undisturbed, tmp_path / kind, Random(18))
    assert KINDS[kind](trial).wrong == ""
