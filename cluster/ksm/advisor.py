"""The scan-time advisor of ksmd: it sets pages_to_scan after each pass, so that passes take the target time.

Models advisor_start_scan(), scan_time_advisor() and set_advisor_defaults() of `mm/ksm.c` since Linux 6.8. All
numbers are whole and all divisions drop the rest, as there.
"""

from __future__ import annotations

from cluster.spec.knobs import UINT_MAX
from cluster.spec.scenario import KsmSpec

#: Weight of the newest pass in the moving average of changes, percent.
_EWMA_WEIGHT = 30
#: Share of a CPU that ksmd may always use, percent.
_MIN_CPU = 10


class Advisor:
    """Keeps pages_to_scan and what it needs of earlier passes; advisor_mode `none` changes neither."""

    def __init__(self, knobs: KsmSpec) -> None:
        self._knobs = knobs
        self._on = knobs.advisor_mode == "scan-time"
        self.pages_to_scan = knobs.advisor_min_pages_to_scan if self._on else knobs.pages_to_scan
        #: Seconds that the last pass took; 0 before the first.
        self._scan_time = 0
        #: Moving average of the time of each pass, in percent of the time of the pass before; 0 at first.
        self._change = 0

    def end_pass(self, scan_ms: int, cpu_ms: int) -> None:
        """Set pages_to_scan after a pass.

        The pass took `scan_ms` milliseconds from its first page to its end, `cpu_ms` of them on a CPU.
        """
        if not self._on:
            return
        knobs = self._knobs
        scan_time = max(scan_ms // 1000, 1)
        cpu_percent = max(cpu_ms * 100 // (scan_time * 1000), 1)
        factor = max(knobs.advisor_target_scan_time * 100 // scan_time, 1)
        change = max(scan_time * 100 // (self._scan_time or scan_time), 1)
        self._change = ((100 - _EWMA_WEIGHT) * self._change + _EWMA_WEIGHT * change) // 100
        self._scan_time = scan_time

        # The kernel multiplies two unsigned ints here.
        wanted = ((self.pages_to_scan * 100) & UINT_MAX) // factor * self._change // 100
        # Pages for each percent of a CPU.
        share = max(self.pages_to_scan // cpu_percent, 1)
        bounded = max(min(wanted, share * knobs.advisor_max_cpu), share * _MIN_CPU)
        self.pages_to_scan = min(bounded, knobs.advisor_max_pages_to_scan)
