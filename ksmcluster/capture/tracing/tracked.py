"""One process whose writes are tracked."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.tracing.registers import Architecture
from ksmcluster.capture.tracing.userfaultfd import Ranges, Userfaultfd, open_in, take_written

_KERNELS_OWN = frozenset({"[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"})
_OTHER_OWNER = "the program has registered it with its own userfaultfd"


class Skipped(NamedTuple):
    """Memory whose writes are not tracked."""

    pid: int
    first_vpn: int | None
    """None means the whole process."""
    end_vpn: int | None
    reason: str


@dataclass(slots=True)
class Record:
    """The pauses caused by tracking, and the memory that it skipped."""

    pauses: list[float] = field(default_factory=list)
    """Seconds."""
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, skipped: Skipped) -> None:
        """Add skipped memory, once."""
        if skipped not in self.skipped:
            self.skipped.append(skipped)


class TrackedProcess:
    """Owns the userfaultfd of one process."""

    def __init__(self, pid: int, machine: Architecture, record: Record) -> None:
        """Open the process; the first `take` stops it. Raises ProcessLookupError if it does not exist."""
        self._pid = pid
        self._machine = machine
        self._record = record
        self._userfaultfd: Userfaultfd | None = None
        self._pidfd = os.pidfd_open(pid)

    def take(self) -> Ranges:
        """Return which pages were written since the last call, and start again.

        Memory that was not tracked before counts as written. Raises ProcessLookupError if the process,
        or the thread that was stopped, has ended; TracingError if it cannot be traced; other OSErrors.
        """
        if self._userfaultfd:
            # A process that executes another program gets new memory.
            with suppress(ProcessLookupError):
                return self._take(self._userfaultfd)
            self._userfaultfd.close()
            self._userfaultfd = None
        if self.has_ended():
            raise ProcessLookupError(self._pid)
        self._userfaultfd, seconds = open_in(self._pid, self._pidfd, self._machine)
        self._record.pauses.append(seconds)
        return self._take(self._userfaultfd)

    def has_ended(self) -> bool:
        """Return whether the process has ended, though it may still be waited for."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Undo everything in the process."""
        if self._userfaultfd:
            self._userfaultfd.close()
            self._userfaultfd = None
        if self._pidfd >= 0:
            descriptor, self._pidfd = self._pidfd, -1
            os.close(descriptor)

    def _take(self, userfaultfd: Userfaultfd) -> Ranges:
        parts = [np.empty((0, 2), np.int64)]
        with self._file("pagemap").open("rb", buffering=0) as pagemap:
            for start, end in self._mappings():
                try:
                    userfaultfd.register(start, end)
                    parts.append(take_written(pagemap.fileno(), start, end))
                except ProcessLookupError:
                    raise
                except OSError as error:
                    reason = _OTHER_OWNER if error.errno == errno.EBUSY else os.strerror(error.errno or 0)
                    self._record.skip(Skipped(self._pid, start // PAGE_SIZE, end // PAGE_SIZE, reason))
        return np.concatenate(parts)

    def _mappings(self) -> Iterator[tuple[int, int]]:
        """Yield the addresses of mappings that can have written private pages."""
        for line in self._file("maps").read_text(errors="replace").splitlines():
            span, permissions, _, _, inode, *name = line.split(maxsplit=5)
            path = name[0] if name else ""
            if permissions[3] != "p" or path in _KERNELS_OWN or path.startswith("/dev/"):
                continue
            if inode == "0" or permissions[1] == "w":
                start, end = span.split("-")
                yield int(start, 16), int(end, 16)

    def _file(self, name: str) -> Path:
        return Path(f"/proc/{self._pid}/{name}")
