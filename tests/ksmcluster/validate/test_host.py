"""For real: the host's ksmd does what the simulator says, and finds its knobs as they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmcluster.validate.knobs import Knobs
from tests.paths import SELFTESTS

from .conftest import COMMAND, USER_OF_KSM, Validate, children_left

pytestmark = pytest.mark.host_ksmd

#: The first, the second, the last, and all pages of a content are pinned; zeros; then pages that were merged.
PINNED = """\
proc A
map A x 40
fill A x 0 3 const 1
pin A x 0 1
fill A x 3 3 const 2
pin A x 4 1
fill A x 6 3 const 3
pin A x 8 1
fill A x 9 3 const 4
pin A x 9 3
fill A x 12 4 seq 100
pin A x 12 4
fill A x 16 4 zero
pin A x 18 2
fill A x 20 6 mod 7 2
mergeable A x
scan 4
pin A x 20 2
fill A x 0 1 const 2
scan 2
fork A B
fill B x 22 2 mod 7 2
scan 3
set use_zero_pages 1
fill A x 30 3 zero
pin A x 31 1
scan 3
dontneed A x 0 4
fill A x 0 4 const 1
scan 3
"""


@pytest.mark.parametrize("engine", ["exact", "inline"])
def test_built_in_script(validate: Validate, knobs: Knobs, engine: str) -> None:
    before = knobs.saved()
    ran = validate("--engine", engine)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1].endswith("all equal")
    assert knobs.saved() == before
    assert not children_left()


def test_times(validate: Validate, knobs: Knobs) -> None:
    before = knobs.saved()
    ran = validate("--time", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    times = json.loads(ran.stdout)["times"]
    assert len(times) == 15
    assert all(time["predicted_seconds"] >= 0 < time["real_seconds"] for time in times)
    assert all(time["predicted_cpu_seconds"] > 0 and time["real_cpu_seconds"] > 0 for time in times)
    assert knobs.saved() == before
    assert not children_left()


@pytest.mark.parametrize("name", ["unmerge_zero_pages", "fork_merging_pages", "merge_two_left"])
def test_given_script(validate: Validate, name: str) -> None:
    ran = validate(SELFTESTS / f"{name}.scn", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    result = json.loads(ran.stdout)
    assert result["differing"] == 0
    assert result["compared"] > 20
    last = result["steps"][-1]
    assert last["simulated"] == last["real"]
    assert "A.x.frames" in last["real"]


def test_pinned_pages(validate: Validate, tmp_path: Path) -> None:
    """Pinned pages wait, fail, and break what meets them, as they do on this host's kernel."""
    script = tmp_path / "pinned.scn"
    script.write_text(PINNED)
    ran = validate(script, "--json")
    if "io_uring cannot pin" in ran.stderr:
        pytest.skip(ran.stderr.strip())
    assert (ran.returncode, ran.stderr) == (0, "")
    result = json.loads(ran.stdout)
    assert result["differing"] == 0
    assert result["compared"] > 200


def test_errors_of_calls_are_compared(validate: Validate, tmp_path: Path) -> None:
    script = tmp_path / "errors.scn"
    script.write_text(
        "proc A\nmap A x 8\nfill A x 0 8 const 1\nunmap A x 2 2\nmergeable A x\nset max_page_sharing 1\n"
        "scan 2\nset max_page_sharing 8\nunmerge_all\nscan 2\nexit A\nscan\nset max_page_sharing 8\nscan\n"
    )
    ran = validate(script, "--json")
    assert ran.returncode == 0, ran.stdout
    calls = json.loads(ran.stdout)["steps"][0]
    assert calls["real"] == {"line 5": "ENOMEM", "line 6": "EINVAL", "line 8": "EBUSY", "line 14": "noscan"}


@pytest.fixture
def odd_knobs(knobs: Knobs) -> Iterator[dict[str, str]]:
    """Knobs as somebody might have set them."""
    before = knobs.saved()
    try:
        for name, value in {
            "pages_to_scan": 77,
            "max_page_sharing": 9,
            "sleep_millisecs": 33,
            "run": 1,
        }.items():
            knobs.must_set(name, value)
        yield knobs.saved()
    finally:
        knobs.put_back(before)


def test_odd_knobs_are_put_back(validate: Validate, knobs: Knobs, odd_knobs: dict[str, str]) -> None:
    assert validate().returncode == 0
    assert knobs.saved() == odd_knobs


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(knobs: Knobs, tmp_path: Path, number: int, code: int) -> None:
    script = tmp_path / "long.scn"
    script.write_text("proc A\nmap A x 9\nfill A x 0 9 const 1\nmergeable A x\nfork A B\nscan 5000\n")
    before = knobs.saved()
    command = subprocess.Popen([*COMMAND, script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while knobs.get("pages_to_scan") == before["pages_to_scan"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(children_left()) == 2
    for _ in range(5):  # by somebody impatient
        command.send_signal(number)
        time.sleep(0.001)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == code, errors
    assert "Traceback" not in errors
    assert knobs.saved() == before
    assert not children_left()


def test_refused_while_somebody_uses_ksm(validate: Validate, knobs: Knobs) -> None:
    before = knobs.saved()
    user = subprocess.Popen(
        [sys.executable, "-c", USER_OF_KSM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout
    assert user.stdout.readline() == "ready\n"
    ran = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    user.communicate("")
    assert ran.returncode == 2
    assert f"({user.pid})" in ran.stderr
    assert ran.stderr.startswith("error: KSM is in use on this host by ")
    assert ran.stderr.count("\n") == 1
    assert knobs.saved() == before


def test_refused_while_another_runs(knobs: Knobs) -> None:
    with knobs.locked():
        ran = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    expected = "error: another ksmcluster process drives ksmd on this host: wait for it\n"
    assert (ran.returncode, ran.stderr) == (2, expected)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_refused_without_permission() -> None:
    if not Knobs().exists("run"):
        pytest.skip("this kernel has no KSM")
    program = (
        "import os; from ksmcluster.cli import app, main\n"
        "app(['validate', '--help'], standalone_mode=False)\n"  # imports what only root can read
        "os.setuid(65534); main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "validate"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: /sys/kernel/mm/ksm: no permission")
    assert ran.stderr.count("\n") == 1
