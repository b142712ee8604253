"""Tracks written pages by write protection that the kernel lifts at the first write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ksmcluster.capture.tracing.ptrace import NO_PERMISSION, TracingError, ptrace_is_permitted
from ksmcluster.capture.tracing.registers import architecture
from ksmcluster.capture.tracing.tracked import Record, Skipped, TrackedProcess
from ksmcluster.capture.tracing.userfaultfd import Ranges, open_here

_NO_RANGES: Ranges = np.empty((0, 2), np.int64)


class Process(Protocol):
    """A running process."""

    @property
    def pid(self) -> int:
        """Its PID."""


class Pages(Protocol):
    """Pages of a process."""

    @property
    def vpn(self) -> NDArray[np.int64]:
        """Page numbers int64[n], ascending."""


class Pauses(NamedTuple):
    """How long threads were stopped: the longest pause and the total."""

    stops: int
    longest_ms: float
    total_ms: float


class PtraceWrites:
    """Tracks writes to the private memory of processes, without injecting code.

    A process is stopped once, when it is first tracked, and again after it has executed another program. A
    forked child is tracked from its first call of `written` on.

    Tracking changes the processes while it lasts. The first write to a page after each call takes a
    fault. After a write, a huge page is mapped by small pages, so later writes to it are reported page by
    page; a new huge page is reported as a whole, and khugepaged makes no new ones. Pages that are new, were
    moved by mremap(2) or were just merged by ksmd count as written. The program cannot register the mappings
    with its own userfaultfd.
    """

    method: Literal["soft-dirty", "ptrace"] = "ptrace"

    def __init__(self, pids: Iterable[int]) -> None:
        """Start tracking; `skipped` lists what cannot be tracked. Requires `can_trace() is None`."""
        machine = architecture()
        assert machine, "see can_trace()"
        self._machine = machine
        self._record = Record()
        self._processes: dict[int, TrackedProcess] = {}
        self._untraceable: set[int] = set()
        try:
            for pid in pids:
                self._take(pid)
        except BaseException:
            self.close()
            raise

    @property
    def pauses(self) -> Pauses:
        """How long processes were stopped until now."""
        milliseconds = [1000 * seconds for seconds in self._record.pauses]
        return Pauses(len(milliseconds), max(milliseconds, default=0.0), sum(milliseconds))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Processes and mappings that are not tracked."""
        return tuple(self._record.skipped)

    def written(self, source: Process, listing: Pages) -> NDArray[np.bool_]:
        """Return which pages of the listing were written since the last call, bool[n], and start again.

        False for pages that are not tracked, and if the process has ended. For a process that was not given
        at the start, the result of the first call is meaningless.
        """
        ranges = self._take(source.pid)
        begun = np.searchsorted(ranges[:, 0], listing.vpn, side="right")
        inside: NDArray[np.bool_] = begun > np.searchsorted(ranges[:, 1], listing.vpn, side="right")
        return inside

    def close(self) -> None:
        """Undo all changes of the processes."""
        while self._processes:
            self._processes.popitem()[1].close()

    def _take(self, pid: int) -> Ranges:
        if pid in self._untraceable:
            return _NO_RANGES
        try:
            return self._process(pid).take()
        except ProcessLookupError:  # the process or the stopped thread has ended
            return _NO_RANGES
        except (TracingError, OSError) as error:
            self._untraceable.add(pid)
            self._record.skip(Skipped(pid, None, None, _reason(error)))
        return _NO_RANGES

    def _process(self, pid: int) -> TrackedProcess:
        known = self._processes.get(pid)
        if known and known.has_ended():  # its PID may have been reused
            self._processes.pop(pid).close()
        if pid not in self._processes:
            self._processes[pid] = TrackedProcess(pid, self._machine, self._record)
        return self._processes[pid]


def can_trace() -> str | None:
    """Return why PtraceWrites cannot work here for any process; None if it can.

    Permission also depends on the process: root may trace all processes; a user may trace processes of the
    same user, and with the Yama module only descendants.
    """
    machine = architecture()
    if machine is None:
        return "written pages can be tracked by ptrace on x86-64 and arm64 only"
    if not ptrace_is_permitted():
        return "ptrace(2) is not permitted here, perhaps by the seccomp profile of a container"
    try:
        open_here(machine).close()
    except PermissionError:
        return "userfaultfd(2) is not permitted here, perhaps by the seccomp profile of a container"
    except OSError:
        return "the kernel has no asynchronous write protection: Linux 6.7 or later (6.10 on arm64) has"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return NO_PERMISSION
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
