"""One run of a sweep, in this process. Its outcome is its figures or its error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ksmcluster import api
from ksmcluster.config import Scenario
from ksmcluster.experiments.figures import Figures, figures, figures_by_pass
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.plan import RunKey, Task
from ksmcluster.report.text import one_line
from ksmcluster.results.result import Result
from ksmcluster.system.errors import RunFailedError, UserError

if TYPE_CHECKING:
    from actors.simulation.actor_pool import ActorPool


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The outcome of a run: either figures or an error."""

    key: RunKey
    figures: Figures = field(default_factory=dict)
    #: Figures by pass, if asked for.
    passes: tuple[Figures, ...] = ()
    error: str = ""
    #: Seconds that the run took on this host.
    wall_seconds: float = 0.0
    #: Notes on the result, a line each.
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {
            "point": self.key.point,
            "seed": self.key.seed,
            "error": self.error,
            "wall_seconds": self.wall_seconds,
            "figures": self.figures,
            "passes": list(self.passes),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunRecord:
        """Return the record from its JSON object."""
        key = RunKey(data["point"], data["seed"])
        passes, notes = tuple(data["passes"]), tuple(data["notes"])
        return cls(key, data["figures"], passes, data["error"], data["wall_seconds"], notes)


class RunDone(NamedTuple):
    """Event: a run of a sweep is finished, the `done`-th of `total`."""

    done: int
    total: int
    point: SweepPoint
    record: RunRecord
    #: Estimated time until all runs are finished.
    seconds_left: float


Progress = Callable[[RunDone], None]


def run_one(task: Task, pool: ActorPool | None = None) -> RunRecord:
    """Carry out a run, on Ray with the actors of a pool if one is given. Raises only interrupts."""
    start = time.perf_counter()
    try:
        result = _result(task, pool)
        passes = figures_by_pass(result) if task.passes_rows and isinstance(result, Result) else []
        took, notes = time.perf_counter() - start, tuple(result.summary.get("notes", ()))
        return RunRecord(task.key, figures(result), tuple(passes), "", took, notes)
    except Exception as error:  # no error may lose the other points
        return failed(task.key, error, time.perf_counter() - start)


def failed(key: RunKey, error: Exception | str, seconds: float = 0.0) -> RunRecord:
    """Return the record of a run that failed."""
    text = (
        str(error)
        if isinstance(error, UserError | RunFailedError | str)
        else f"{type(error).__name__}: {error}"
    )
    lines = (line.removeprefix("--set ") for line in text.splitlines())
    return RunRecord(key, error=one_line("; ".join(lines)), wall_seconds=seconds)


def _result(task: Task, pool: ActorPool | None) -> Any:
    if isinstance(task.scenario, Scenario):
        return api.run(task.scenario, task.options, pool=pool)
    return api.compact(task.scenario, task.options)
