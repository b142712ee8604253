"""A Ray of our own whose raylet freezes as it starts: it goes on, or the command ends and leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from actors.watching.processes import LinuxProcess, children, process

COMMAND = ["-m", "ksmcluster", "simulate", "tiny", "--passes", "2", "--stall-timeout", "10", "--quiet"]


STOPPED = """
import os, signal
signal.signal(signal.SIGCONT, lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
os.kill(os.getpid(), signal.SIGSTOP)
while True:
    signal.pause()
"""
START = """
import subprocess, sys, time
from actors.watching.frozen_start import watched_start
with watched_start(sys.argv[2], 2):
    subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], "/raylet/raylet"]).wait()
"""


def raylet_of(pid: int) -> LinuxProcess:
    """The raylet of a command, as soon as it is there."""
    while True:
        found = [one for one in children().get(pid, []) if "/raylet/raylet\0" in one.command()]
        if found:
            return found[0]
        time.sleep(0.001)


def test_a_raylet_that_is_stopped_as_it_starts_goes_on() -> None:
    with subprocess.Popen([sys.executable, *COMMAND], stdout=subprocess.PIPE, text=True) as command:
        raylet_of(command.pid).send(signal.SIGSTOP)
        stdout, _ = command.communicate(timeout=120)
    assert command.returncode == 0
    assert "pages_sharing" in stdout


def test_a_raylet_that_does_not_go_on_ends_the_command(tmp_path: Path) -> None:
    """The raylet is a process that looks like one, and stops again whenever it is told to go on."""
    with subprocess.Popen(
        [sys.executable, "-c", START, STOPPED, str(tmp_path)], stderr=subprocess.PIPE, text=True
    ) as command:
        raylet = raylet_of(command.pid)
        _, stderr = command.communicate(timeout=60)
    assert command.returncode == 1
    assert stderr.splitlines() == [
        "error: Ray did not start: a process of it did nothing for 2 s; start again, or resume from the "
        "last checkpoint if there is one"
    ]
    assert any(_is_gone(raylet) for _ in range(100))


def _is_gone(one: LinuxProcess) -> bool:
    """Return whether a process has ended; one that was killed takes a moment."""
    now = process(one.pid)
    if now is not None and now.start == one.start:
        time.sleep(0.05)
        return False
    return True
