"""The command with a Ray of its own: started, used, and gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "ksmcluster.cli", "simulate", "tiny"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Ray's files in a directory of their own, by which its processes can be told; not a cluster's token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Not pytest's directory: names of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ksm") as folder:
        yield own | {"RAY_TMPDIR": folder}


def found(environment: dict[str, str], file: str) -> Iterator[tuple[int, str]]:
    """Processes that have Ray's directory in this file of theirs in /proc: numbers and command lines."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line, text = ((entry / name).read_bytes().decode(errors="replace") for name in ("cmdline", file))
        except OSError:
            continue
        if environment["RAY_TMPDIR"] in text:
            yield int(entry.name), line


def processes_of(environment: dict[str, str]) -> list[str]:
    return [line for _, line in found(environment, "cmdline")]


def gone(environment: dict[str, str]) -> bool:
    """Whether Ray's processes end; they take a moment."""
    for _ in range(100):
        if not processes_of(environment):
            return True
        time.sleep(0.1)
    return False


def test_ray_prints_what_inline_prints_and_nothing_else(environment: dict[str, str]) -> None:
    def run(*options: str) -> dict[str, object]:
        done = subprocess.run(
            [*COMMAND, "--json", "--quiet", *options],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        summary: dict[str, object] = json.loads(done.stdout)
        return summary

    assert run("--engine", "ray") == run("--engine", "inline")
    assert gone(environment)


def coordinator_of(environment: dict[str, str]) -> int:
    """The number of its process; Ray has put a name of its own in the place of its command line."""
    (number,) = (n for n, line in found(environment, "environ") if line.startswith("ray::Coordinator"))
    return number


@pytest.mark.parametrize(
    ("number", "code", "says", "waiting"),
    [
        (signal.SIGINT, 130, "interrupted", True),
        (signal.SIGTERM, 143, "terminated", False),
        (signal.SIGHUP, 129, "hung up", True),
    ],
)
def test_a_signal_leaves_no_ray_behind(
    environment: dict[str, str], number: signal.Signals, code: int, says: str, waiting: bool
) -> None:
    with subprocess.Popen(
        [*COMMAND, "--passes", "100000"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        while not process.stderr.readline().startswith("pass 2 "):
            assert process.poll() is None
        running = " ".join(processes_of(environment))
        assert "gcs_server" in running
        assert not any(script in running for script in ("monitor.py", "dashboard.py"))
        if waiting:  # in Ray's C++, which has its own way with what a handler raises
            os.kill(coordinator_of(environment), signal.SIGSTOP)
            time.sleep(1)
        # As a terminal, timeout and scancel do it: to all processes of the group.
        os.killpg(process.pid, number)
        rest = process.stderr.read()
        assert process.wait() == code
    assert [line for line in rest.splitlines() if not line.startswith("pass ")] == [says]
    assert gone(environment)
