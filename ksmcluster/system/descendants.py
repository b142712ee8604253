"""The descendants of this process.

`actors.watching.processes` also lists processes. But a signal may arrive while `actors` is being imported, so
the code that ends a command must not need it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from ksmcluster.system.kernel_files import PROC

_SET_CHILD_SUBREAPER = 36
#: Seconds to wait for the kernel to end processes.
_PATIENCE = 1.0


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (prctl(2)), so that none is lost."""
    import ctypes

    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def family(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def end_descendants() -> None:
    """Kill all descendants of this process, including those that they start meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while (left := family(os.getpid())[1:]) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
