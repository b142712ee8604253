"""For real: ksmd's time is measured on this host, whose knobs are found as they were."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ksmcluster.validate.calibrate.session import calibrate
from ksmcluster.validate.knobs import Knobs

from .conftest import COMMAND, USER_OF_KSM, children_left

pytestmark = pytest.mark.host_ksmd

CALIBRATE = [*COMMAND[:-1], "calibrate", "--quiet", "--output"]


def test_small_programs(knobs: Knobs) -> None:
    before = knobs.saved()
    told: list[str] = []
    found = calibrate(told.append, largest=1024, seconds=0)
    assert (found.repetitions, told) == (1, ["repetition 1"])
    assert all(m.cpu_seconds[0] > 0 for m in found.measurements)
    measured = [term for term in found.fit.terms if term.uncertainty is not None]
    assert measured
    assert all(term.value > 0 for term in measured)
    assert knobs.saved() == before
    assert not children_left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(knobs: Knobs, tmp_path: Path, number: int, code: int) -> None:
    before = knobs.saved()
    file = tmp_path / "cost.toml"
    command = subprocess.Popen([*CALIBRATE, file], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not children_left() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    for _ in range(5):  # by somebody impatient
        command.send_signal(number)
        time.sleep(0.001)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == code, errors
    assert "Traceback" not in errors
    assert knobs.saved() == before
    assert not children_left()
    assert not list(tmp_path.iterdir())


def test_refused_while_somebody_uses_ksm(knobs: Knobs, tmp_path: Path) -> None:
    before = knobs.saved()
    user = subprocess.Popen(
        [sys.executable, "-c", USER_OF_KSM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout
    assert user.stdout.readline() == "ready\n"
    ran = subprocess.run([*CALIBRATE, tmp_path / "cost.toml"], capture_output=True, text=True, check=False)
    user.communicate("")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: KSM is in use on this host by ")
    assert ran.stderr.count("\n") == 1
    assert knobs.saved() == before


def test_a_file_of_others_is_left_alone(knobs: Knobs, tmp_path: Path) -> None:
    file = tmp_path / "cost.toml"
    file.write_text("mine\n")
    ran = subprocess.run([*CALIBRATE, file], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "this command did not write the existing file" in ran.stderr
    assert file.read_text() == "mine\n"
