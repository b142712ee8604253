"""Processes of this machine: which descend from another one, and which are frozen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_RAYLET = "/raylet/raylet\0"


class LinuxProcess(NamedTuple):
    """A process as /proc/PID/stat shows it. `start`, its time of start, tells it from a later one."""

    pid: int
    parent: int
    start: int
    state: str
    #: CPU time of all its threads, in clock ticks.
    ticks: int

    def command(self) -> str:
        """Return its command line, or the name that it gave itself; "" if it is gone."""
        with suppress(OSError):
            return (_PROC / str(self.pid) / "cmdline").read_bytes().decode(errors="replace")
        return ""

    def kill(self) -> None:
        """Kill it, if it is still there."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        now = process(self.pid)
        if now is not None and now.start == self.start:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def process(pid: int) -> LinuxProcess | None:
    """Return a process, None if it has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, parent, ticks, start = (
        fields[0],
        int(fields[1]),
        int(fields[11]) + int(fields[12]),
        int(fields[19]),
    )
    return None if state in "ZX" else LinuxProcess(pid, parent, start, state, ticks)


def children() -> dict[int, list[LinuxProcess]]:
    """Return the children of each process, by its number."""
    found: dict[int, list[LinuxProcess]] = {}
    for entry in _PROC.glob("[0-9]*"):
        if (one := process(int(entry.name))) is not None:
            found.setdefault(one.parent, []).append(one)
    return found


def descendants(pids: Iterable[int]) -> list[LinuxProcess]:
    """Return the processes that descend from these, parents first."""
    of = children()
    found = [child for pid in pids for child in of.get(pid, [])]
    for one in found:
        found += of.get(one.pid, [])
    return found


class FrozenProcesses:
    """Finds frozen processes: those that used no CPU time from one look to the next, many times in a row.

    A process of Ray uses some every second, even if it waits: its threads send and check heartbeats. A frozen
    one uses none: SIGSTOP, a debugger, a frozen control group. One that waits for a disk is left alone. Looks
    are counted, not time: whoever looks may have been suspended, too.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks
        #: CPU time and unchanged looks, by number and time of start.
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}

    def look(self, processes: Iterable[LinuxProcess]) -> list[LinuxProcess]:
        """Look at the processes; return the frozen ones."""
        before, self._seen = self._seen, {}
        frozen = []
        for one in processes:
            key = one.pid, one.start
            ticks, unchanged = before.get(key, (-1, 0))
            unchanged = unchanged + 1 if ticks == one.ticks and one.state != "D" else 0
            self._seen[key] = one.ticks, unchanged
            if unchanged >= self._looks:
                frozen.append(one)
        return frozen


def is_of_ray(one: LinuxProcess) -> bool:
    """Return whether it is Ray's head, a raylet, or an actor, which may still be starting."""
    command = one.command()
    if command.startswith("ray::"):
        return "Agent" not in command
    return any(name in command for name in (_RAYLET, "/gcs/gcs_server\0", "/default_worker.py\0"))


def is_raylet(one: LinuxProcess) -> bool:
    """Return whether it is a raylet, of which each machine of a cluster has one."""
    return _RAYLET in one.command()
