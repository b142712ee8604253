"""Chooses the thread of a process to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ksmcluster.capture.tracing.registers import Architecture, WaitingCall

_RESTARTED, _RUNNING, _OTHER, _UNINTERRUPTIBLE = range(4)


class Thread(NamedTuple):
    """A thread, and whether it waits."""

    tid: int
    waiting: WaitingCall | None
    """The call in which it waits; None if it runs."""


def quietest_thread(pid: int, machine: Architecture) -> Thread:
    """Return the thread of a process that a stop disturbs least.

    The best choice is a thread in a call that the kernel itself repeats, then a running one. Threads in
    uninterruptible sleep come last, because they stop late. Raises ProcessLookupError if there is no
    thread, PermissionError if the process must not be traced.
    """
    best: tuple[int, Thread] | None = None
    for rank, thread in _ranked(pid, machine):
        if best is None or rank < best[0]:
            best = rank, thread
        if rank == _RESTARTED:
            break
    if best is None:
        raise ProcessLookupError(pid)
    return best[1]


def _ranked(pid: int, machine: Architecture) -> Iterator[tuple[int, Thread]]:
    try:
        tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return
    for task in tasks:
        with suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if state in "ZX":
                continue
            waiting = _waiting(task)
            yield _rank(state, waiting, machine), Thread(int(task.name), waiting)


def _rank(state: str, waiting: WaitingCall | None, machine: Architecture) -> int:
    if state == "D":
        return _UNINTERRUPTIBLE
    if waiting is None:
        return _RUNNING
    return _RESTARTED if waiting.number in machine.restarted else _OTHER


def _waiting(task: Path) -> WaitingCall | None:
    # "running"; or -1, stack and counter; or number, six arguments, stack and counter
    words = (task / "syscall").read_text().split()
    if len(words) < 9:
        return None
    return WaitingCall(int(words[0]), *(int(words[at], 16) for at in (1, 7, 8)))
