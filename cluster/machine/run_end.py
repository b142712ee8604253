"""When a run ends: after a number of passes, at a simulated time, or once its figures stand still."""

from __future__ import annotations

import math
from collections import deque

from cluster.machine.pass_result import PassResult
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import ProcessSpec, SimulationSpec

#: A run has converged once its figures stand still over this many passes. smart_scan leaves out a page in at
#: most eight passes in a row, so each page has been visited at least once.
CONVERGED_PASSES = 10
#: The figures that stand still then, beside the saved frames: each line is a sum, over all nodes. smart_scan
#: takes pages from pages_unshared to pages_volatile and back, pass by pass.
CONVERGED_FIGURES = (
    ("pages_shared",),
    ("pages_sharing",),
    ("pages_unshared", "pages_volatile"),
    ("ksm_zero_pages",),
)


class RunEnd:
    """Decides after each pass whether it was the last."""

    def __init__(self, spec: SimulationSpec) -> None:
        self._passes = spec.passes
        self._seconds = spec.seconds
        self._tolerance = spec.tolerance
        #: The last passes in which the figures may have stood still: the end of each and its figures.
        self._recent: deque[tuple[float, list[int]]] = deque()
        self._settled = max(map(last_change, spec.processes), default=0.0)
        self._cycle = max(map(longest_cycle, spec.processes), default=0.0)
        self._relocated = max((r.after_pass or 0 for r in spec.relocations), default=0)
        self._last_time = 0.0

    def is_last(self, result: PassResult) -> bool:
        """Return whether the run ends with this pass. Call it once for each pass, in order.

        Raises SimulationError if the end is a simulated time and time stands still.
        """
        if self._seconds is not None:
            self._check_time(result.simulated_seconds)
        over = self._passes is not None and result.number >= self._passes
        late = self._seconds is not None and result.simulated_seconds >= self._seconds
        return over or late or (self._tolerance is not None and self._has_converged(result, self._tolerance))

    def _check_time(self, seconds: float) -> None:
        if seconds <= self._last_time:
            raise SimulationError(
                "simulation.seconds: a pass takes no simulated time with these knobs and costs; "
                "give simulation.passes"
            )
        self._last_time = seconds

    def _has_converged(self, result: PassResult, tolerance: float) -> bool:
        """Return whether all figures of the last passes are within the tolerance of each other.

        The passes begin after all that the scenario changes at a known time, and cover each cycle of writes.
        """
        if result.simulated_seconds < self._settled or result.number <= self._relocated:
            return False
        sums = [sum(int(result.nodes[name].sum()) for name in names) for names in CONVERGED_FIGURES]
        saved = int((result.nodes["frames_without_ksm"] - result.nodes["frames_used"]).sum())
        self._recent.append((result.simulated_seconds, [saved, *sums]))
        while len(self._recent) > CONVERGED_PASSES and self._span(1) >= self._cycle:
            self._recent.popleft()
        if len(self._recent) < CONVERGED_PASSES or self._span(0) < self._cycle:
            return False
        most = tolerance * int(result.nodes["pages_mapped"].sum())
        return all(
            max(column) - min(column) <= most for column in zip(*(f for _, f in self._recent), strict=True)
        )

    def _span(self, first: int) -> float:
        """Return the simulated seconds from one of the recent passes to the last."""
        return self._recent[-1][0] - self._recent[first][0]


def last_change(kind: ProcessSpec) -> float:
    """Return the last simulated second at which the scenario lets writes begin or stop."""
    times = list(kind.layout.times[1:]) if kind.layout else []
    for region in kind.regions:
        times += [
            time for write in region.writes for time in (write.start, write.stop) if math.isfinite(time)
        ]
    return max(times, default=0.0)


def longest_cycle(kind: ProcessSpec) -> float:
    """Return the longest cycle of writes and pauses, in simulated seconds."""
    return max((write.period for region in kind.regions for write in region.writes), default=0.0)
