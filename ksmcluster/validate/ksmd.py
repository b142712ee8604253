"""Steps ksmd: exactly one wake-up at a time.

Between steps, `run` is 0 and ksmd is parked. With `run` 1 it scans one batch of `pages_to_scan` pages, which
ends early at the end of a pass, and then sleeps; `sleep_millisecs` is so large that it does not wake up. Then
`run` is set to 0. A change of `sleep_millisecs` wakes ksmd; it sees that `run` is 0, and parks.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import time
from collections.abc import Callable
from itertools import cycle

from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import read
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.procfs import kernel_thread

WHOLE_PASS = 10**8  #: pages_to_scan that no pass reaches
_SLEEPS = ("100000000", "200000000")  #: milliseconds
_STEP_PATIENCE = 300.0  #: seconds
_PARK_PATIENCE = 1.0  #: seconds after which a sleeping ksmd must be parked
_NAP = 0.0001  #: seconds between checks

_MBIND = {"x86_64": 237, "aarch64": 235, "riscv64": 235}  #: system call numbers
_MPOL_BIND, _MPOL_MF_MOVE = 2, 2


class Ksmd:
    """The ksmd thread, and the knobs that drive it."""

    def __init__(self, knobs: Knobs) -> None:
        """Find the thread. Raises UserError if it is not visible."""
        self._knobs = knobs
        self._thread = kernel_thread("ksmd")
        self._sleeps = cycle(_SLEEPS)
        self._page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._page[0] = 1

    def start(self) -> None:
        """Unmerge all pages, and park ksmd for the next steps."""
        self._knobs.forget_all()
        self._park()

    def step(self, pages: int) -> None:
        """Run one wake-up with `pages` pages_to_scan. Raises UserError if it does not end."""
        self.drain()
        self._knobs.must_set("pages_to_scan", pages)
        _, before = self._state()
        start = time.monotonic()
        self._knobs.must_set("run", 1)
        while not self._sleeps_since(before):
            if time.monotonic() - start > _STEP_PATIENCE:
                raise UserError("ksmd does not come to an end: try a smaller scenario")
            time.sleep(_NAP)
        self._knobs.must_set("run", 0)  # waits for the mutex that a scan holds
        self._park()

    def run_until(
        self, ended: Callable[[], bool], pages: int, sleep_millisecs: int, nap: float = _NAP
    ) -> float:
        """Let ksmd work and sleep with these knobs until `ended` returns true; return the seconds.

        Checks `ended` every `nap` seconds. Raises UserError if it stays false for too long.
        """
        self._knobs.must_set("pages_to_scan", pages)
        self._knobs.must_set("sleep_millisecs", sleep_millisecs)
        start = time.monotonic()
        self._knobs.must_set("run", 1)
        while not ended():
            if time.monotonic() - start > _STEP_PATIENCE:
                raise UserError("ksmd does not come to an end: try a smaller scenario")
            time.sleep(nap)
        seconds = time.monotonic() - start
        self._knobs.must_set("run", 0)
        self._park()
        return seconds

    def cpu_seconds(self) -> float:
        """Return ksmd's CPU time so far; in whole ticks if the kernel has no scheduler statistics."""
        if statistics := read(self._thread / "schedstat"):
            return int(statistics.split()[0]) * 1e-9
        fields = (self._thread / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        """Return how often ksmd has gone to sleep so far."""
        return self._state()[1]

    def _park(self) -> None:
        """Make ksmd wait for run=1, unless it already does: then a changed sleep does not wake it."""
        _, before = self._state()
        self._knobs.must_set("sleep_millisecs", next(self._sleeps))
        state, switches = self._state()
        if state == "S" and switches == before:
            return
        start = time.monotonic()
        while not self._sleeps_since(before):
            if time.monotonic() - start > _PARK_PATIENCE and self._state()[0] == "S":
                return
            time.sleep(_NAP)

    def _sleeps_since(self, switches: int) -> bool:
        state, now = self._state()
        return state == "S" and now > switches

    def _state(self) -> tuple[str, int]:
        """Return the state of the thread, and how often it has gone to sleep."""
        state = (self._thread / "stat").read_text().rpartition(")")[2].split()[0]
        status = (self._thread / "status").read_text()
        return state, int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    def drain(self) -> None:
        """Flush the per-CPU batches of new pages by moving pages; pages in these batches cannot merge.

        ksmd flushes them itself at the start of a pass; this is for writes in the middle of a pass.
        """
        number = _MBIND.get(platform.machine())
        if number is None:
            return
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        nodes = (ctypes.c_ulong * 16)(1)
        arguments = (number, address, mmap.PAGESIZE, _MPOL_BIND, ctypes.addressof(nodes), 1024, _MPOL_MF_MOVE)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(*map(ctypes.c_long, arguments)) and ctypes.get_errno() != errno.ENOSYS:
            reason = os.strerror(ctypes.get_errno())
            raise UserError(f"mbind is not allowed here ({reason}): run outside of any container")
