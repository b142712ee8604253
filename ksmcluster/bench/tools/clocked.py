"""A simulation whose passes are timed with a given clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.run_options import INLINE, RunOptions
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import Event, PassDone, PassResult, PassStarted
from cluster.spec.scenario import SimulationSpec
from ksmcluster.bench.tools.calibration import Clock


@dataclass(frozen=True, slots=True)
class Clocked:
    """Seconds of a simulation: `start` until the first pass begins, then those of each pass."""

    results: list[PassResult]
    start: float
    seconds: list[float]


def clocked(
    spec: SimulationSpec,
    clock: Clock,
    options: RunOptions = INLINE,
    when_filled: Callable[[], object] = lambda: None,
) -> Clocked:
    """Run a simulation once; `when_filled` is called before its first pass.

    Raises SimulationError if it cannot run.
    """
    marks = [clock()]

    def on_event(event: Event) -> None:
        if isinstance(event, PassStarted) and event.number == 1:
            when_filled()
        if isinstance(event, PassStarted | PassDone):
            marks.append(clock())

    results = list(run_passes(spec, options, on_event=on_event))
    seconds = [done - begun for begun, done in zip(marks[1::2], marks[2::2], strict=True)]
    return Clocked(results, marks[1] - marks[0], seconds)
