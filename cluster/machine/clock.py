"""Simulated time: the CPU time of ksmd's work, and its sleep in jiffies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64
from cluster.ksm.advisor import Advisor
from cluster.machine.cost import Columns, OfNodes, ksmd_cpu_ns, searched
from cluster.spec.scenario import SimulationSpec

Seconds = NDArray[np.float64]

#: A timer that is due in 63 or more jiffies is in a coarser level of the timer wheel: LVL_START(1) of
#: kernel/time/timer.c. Each level is eight times as coarse as the one before.
_FINE_JIFFIES = 63
_COARSER = 8


class Clock:
    """Simulated time since the start of ksmd, and the CPU time of ksmd."""

    def __init__(self, spec: SimulationSpec) -> None:
        self._spec = spec
        self._knobs = spec.ksm
        self.advisor = Advisor(spec.ksm)
        self.columns: Columns = {}
        self.cpu_ns = np.zeros(spec.machine.nodes)
        self.seconds = 0.0
        #: Searches of the stable tree in the last window, for each stable node.
        self.searches = 0.0
        threads = spec.machine.nodes if spec.ksm.threads == "per-node" else 1
        #: By thread of ksmd: when it last woke up, its CPU time since then, and the pages scanned since then.
        self._woken = np.zeros(threads)
        self._work = np.zeros(threads)
        self._pages = np.zeros(threads, np.int64)
        self._pass_began = 0.0
        #: When the thread that ends a pass last has scanned its last page; it sleeps after that.
        self.last_page_seconds = 0.0
        #: Simulated seconds that the workload's writes have reached.
        self.ticked = 0.0

    def advance(self, columns: Columns, *, ended: bool) -> None:
        """Advance by one window, after which `columns` are the statistics since the start.

        ksmd sleeps after each `pages_to_scan` pages, and where a pass ends (ksm_do_scan()).
        """
        old = self.columns or {name: np.zeros_like(values) for name, values in columns.items()}
        scanned = columns["pages_scanned"] - old["pages_scanned"]
        cpu = ksmd_cpu_ns(self._spec, old, columns, self._wakeups(scanned, ended=ended))
        self.cpu_ns += cpu
        if len(self._woken) == 1:
            cpu, scanned = cpu.sum(keepdims=True), scanned.sum(keepdims=True)
        pages, work = self._pages + scanned, self._work + cpu * 1e-9
        batches, self._pages = np.divmod(pages, self.advisor.pages_to_scan)
        of_page = work / np.maximum(pages, 1)
        self._work = work - of_page * (pages - self._pages)
        self._woken += batches * self._wakeup_period(of_page * self.advisor.pages_to_scan)
        if ended:
            self._sleep_at_end()
        # A window may be one node's pages alone: threads do not wait for each other before the pass ends.
        self.seconds = float((self._woken + self._work).max())
        searches = searched(old, columns).sum()
        self.searches = float(searches / max(columns["pages_shared"].sum(), 1))
        self.columns = columns

    def _wakeups(self, scanned: I64, *, ended: bool) -> OfNodes:
        """Return how often ksmd wakes up to scan these pages of each node: int64[nodes] -> float64[nodes].

        One for each `pages_to_scan` pages, and one more of each thread where a pass ends.
        """
        at_end = len(self._woken) / len(scanned) if ended else 0.0
        return scanned / self.advisor.pages_to_scan + at_end

    def _sleep_at_end(self) -> None:
        """Let ksmd sleep after the last pages of a pass."""
        last_page = self._woken + self._work
        self._woken += self._wakeup_period(self._work)
        self.last_page_seconds = float(last_page[np.argmax(self._woken)])
        self._work, self._pages = np.zeros_like(self._work), np.zeros_like(self._pages)

    def _wakeup_period(self, work: Seconds) -> Seconds:
        """Return the time from a wake-up to the next one, with so much CPU time in between: float64[n]."""
        waited = work + self._spec.cost.cpu_wait * 1e-9
        return wakeup_period(waited, self._knobs.sleep_millisecs, self._knobs.hz)

    def end_pass(self, cpu_ns: int) -> None:
        """End a pass with so much CPU time of all threads."""
        # In whole nanoseconds first: 24.0 s as a float may be a little less.
        self.advisor.end_pass(round(self.pass_seconds() * 1e9) // 10**6, cpu_ns // 10**6)
        self._begin_pass()

    def pass_seconds(self) -> float:
        """Return the time of the pass that has just ended, without the sleep after its last page."""
        return self.last_page_seconds - self._pass_began

    def stand_by(self, columns: Columns) -> None:
        """Advance by the time that an idle ksmd would sleep in a pass over all mapped pages.

        ksmd does not run (run=0, or no process has registered), but time passes, and processes write.
        """
        pages = int(columns["pages_mapped"].sum()) // len(self._woken)
        self.seconds += self.sleep_seconds(pages // self.advisor.pages_to_scan + 1)
        self.columns = columns
        self._begin_pass()

    def sleep_seconds(self, wakeups: int) -> float:
        """Return the time that a number of wake-ups takes without CPU time; at least a jiffy each."""
        period = wakeup_period(np.zeros(1), max(self._knobs.sleep_millisecs, 1), self._knobs.hz)
        return wakeups * float(period[0])

    def _begin_pass(self) -> None:
        """All threads begin the next pass together."""
        self._woken[:] = self._pass_began = self.seconds


def wakeup_period(work: Seconds, sleep_millisecs: int, hz: int) -> Seconds:
    """Return the seconds from a wake-up of ksmd to the next one: float64[n] -> float64[n].

    ksmd works for `work` seconds and then sleeps for `sleep_millisecs`, rounded up to jiffies (1/hz s). A
    timer fires at a tick, one later than asked for, and from 63 jiffies on at each 8th tick, from 504 on at
    each 64th, and so on (msecs_to_jiffies() and calc_index() of the kernel). ksmd is woken at a tick, too, so
    work of less than a jiffy does not make the period longer.
    """
    if sleep_millisecs == 0:
        return work
    timeout = -(-sleep_millisecs * hz // 1000)
    grain = 1
    while timeout >= _FINE_JIFFIES * grain:
        grain *= _COARSER
    # Half a nanosecond more, so that work of whole jiffies is not taken for less.
    due = np.floor((work + 5e-10) * hz) + timeout
    period: Seconds = np.maximum((due // grain + 1) * grain / hz, work)
    return period
