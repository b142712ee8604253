"""The real processes of a scenario: starts them, sends them commands, and ends them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from ksmcluster.system.errors import UserError
from ksmcluster.validate import child

_PATIENCE = 60.0  #: seconds for one command, or for one process to end


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    #: readable once the process has ended
    pidfd: int
    connection: Connection


class Children:
    """All processes of a scenario; leaving the context kills those that still live."""

    def __init__(self, most: int) -> None:
        """`most` is the largest number of processes."""
        pairs = [socket.socketpair() for _ in range(most)]
        self._ours = [Connection(ours.detach()) for ours, _ in pairs]
        self._theirs = [theirs.detach() for _, theirs in pairs]
        self._used = 0
        self._children: dict[str, _Child] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._children.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        for process in self._children.values():
            _wait_for_end(process)
        for started in self._started:
            started.kill()  # its start was interrupted before it was registered
            started.wait()
        for fd in self._theirs:
            os.close(fd)
        for connection in self._ours:
            connection.close()

    def pids(self) -> dict[str, int]:
        """Return the PIDs of living processes by name, in the order of creation."""
        return {name: process.pid for name, process in self._children.items()}

    def start(self, name: str) -> None:
        """Start a new process with its own memory."""
        number = self._next()
        command = [sys.executable, "-I", "-S", child.__file__, str(self._theirs[number])]
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=self._theirs, start_new_session=True
        )
        self._started.append(started)
        self._add(name, started.pid, number)

    def fork(self, name: str, new: str) -> None:
        """Fork a process; the child is called `new`."""
        number = self._next()
        self._add(new, int(self._ask(name, "fork", self._theirs[number])), number)

    def tell(self, name: str, command: str, *arguments: object) -> str:
        """Send a command to a process; return the name of the error, or an empty text."""
        return str(self._ask(name, command, *arguments))

    def end(self, name: str) -> None:
        """End a process, and wait until its memory is freed."""
        process = self._children[name]
        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        _wait_for_end(process)
        del self._children[name]

    def _next(self) -> int:
        self._used += 1
        return self._used - 1

    def _add(self, name: str, pid: int, number: int) -> None:
        self._children[name] = _Child(pid, os.pidfd_open(pid), self._ours[number])

    def _ask(self, name: str, command: str, *arguments: object) -> Any:
        process = self._children[name]
        process.connection.send((command, *arguments))
        if process.connection not in wait([process.connection, process.pidfd], _PATIENCE):
            raise UserError(f"process {name} died or hangs in {command}: is there enough memory?")
        return process.connection.recv()


def _wait_for_end(process: _Child) -> None:
    ended, _, _ = select.select([process.pidfd], [], [], _PATIENCE)
    if not ended:
        raise UserError(f"process {process.pid} does not end: kill it manually")
    os.close(process.pidfd)
