"""ksmd, stepped: exactly one wake-up at a time.

Between steps `run` is 0 and ksmd is parked. With `run` 1 it does one round of `pages_to_scan` pages, which
ends early at the end of a pass, and sleeps; as `sleep_millisecs` is huge, for good. `run` is set to 0 then,
and a change of `sleep_millisecs` makes ksmd leave that sleep, see it, and park.
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
_PARK_PATIENCE = 1.0  #: seconds after which a sleeping ksmd must have been parked all along
_NAP = 0.0001  #: seconds between looks

_MBIND = {"x86_64": 237, "aarch64": 235, "riscv64": 235}  #: system call numbers
_MPOL_BIND, _MPOL_MF_MOVE = 2, 2


class Ksmd:
    """The thread, and the knobs that drive it."""

    def __init__(self, knobs: Knobs) -> None:
        """Raises UserError if the thread cannot be seen."""
        self._knobs = knobs
        self._thread = kernel_thread("ksmd")
        self._sleeps = cycle(_SLEEPS)
        self._page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._page[0] = 1

    def start(self) -> None:
        """Unmerge all, and park ksmd for steps to come."""
        self._knobs.forget_all()
        self._park()

    def step(self, pages: int) -> None:
        """One wake-up with so many pages_to_scan. Raises UserError if it does not end."""
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
        """Let ksmd work and sleep as these knobs say until something has happened; return the seconds.

        Looks whether it has after each `nap` seconds. Raises UserError if it does not happen.
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
        """CPU time of ksmd so far; where the kernel keeps no statistics of its scheduler, in ticks."""
        if statistics := read(self._thread / "schedstat"):
            return int(statistics.split()[0]) * 1e-9
        fields = (self._thread / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        """How often ksmd went to sleep so far."""
        return self._state()[1]

    def _park(self) -> None:
        """Let ksmd wait for run=1, unless it does so already: then a changed sleep does not wake it."""
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
        """First the state of the thread, then how often it went to sleep."""
        state = (self._thread / "stat").read_text().rpartition(")")[2].split()[0]
        status = (self._thread / "status").read_text()
        return state, int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    def drain(self) -> None:
        """Flush the per-CPU batches of new pages, in which they cannot merge; moving pages does so.

        ksmd does so itself when a pass starts; this is for writes in the middle of one.
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
