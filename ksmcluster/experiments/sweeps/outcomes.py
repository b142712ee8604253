"""The outcomes of the points of a sweep, and the best points."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from ksmcluster.experiments.figures import Figures
from ksmcluster.experiments.sweeps import pareto
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.pareto import Limit, Objective
from ksmcluster.experiments.sweeps.run_one import RunRecord


class Outcome(NamedTuple):
    """The outcome of a point: means over its seeds, deviations if there are several, errors and notes."""

    point: SweepPoint
    means: Figures
    noise: dict[str, float]
    runs: int
    errors: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Choice(NamedTuple):
    """Points by number: the Pareto front, and the recommended point within all limits."""

    objectives: tuple[Objective, ...]
    #: The objectives whose values differ between points by more than 1 %; all objectives if there are none.
    differing: tuple[Objective, ...]
    limits: tuple[Limit, ...]
    front: tuple[int, ...]
    recommended: int | None
    #: Finished points that are not compared, as they lack the first objective.
    left_out: tuple[int, ...] = ()

    @property
    def figures(self) -> list[str]:
        """Return the figures of the objectives, then those of the limits."""
        names = [objective.name for objective in self.objectives] + [limit.name for limit in self.limits]
        return list(dict.fromkeys(names))


class Findings(NamedTuple):
    """The content of the report of a sweep."""

    outcomes: tuple[Outcome, ...]
    choice: Choice
    seeds: int
    #: Number of runs that are still missing.
    missing: int
    #: Figures that tables show besides those of the objectives and limits.
    more: tuple[str, ...] = ()

    @property
    def figures(self) -> list[str]:
        """Return the figures that tables show."""
        return list(dict.fromkeys([*self.more, *self.choice.figures]))

    @property
    def keys(self) -> list[str]:
        """Return the keys that vary."""
        return list(dict.fromkeys(key for outcome in self.outcomes for key in outcome.point.settings))


def outcome_of(point: SweepPoint, records: Sequence[RunRecord]) -> Outcome:
    """Return the outcome of a point, from the records of its runs."""
    done = [record.figures for record in records if not record.error]
    means: Figures = {}
    noise: dict[str, float] = {}
    for name in dict.fromkeys(name for figures in done for name in figures):
        values = [value for figures in done if (value := figures.get(name)) is not None]
        means[name] = (fmean(values) if len(values) > 1 else values[0]) if values else None
        if len(values) > 1:
            noise[name] = stdev(values)
    errors = tuple(dict.fromkeys(record.error for record in records if record.error))
    notes = tuple(dict.fromkeys(note for record in records for note in record.notes))
    return Outcome(point, means, noise, len(done), errors, notes)


def choose(outcomes: Sequence[Outcome], objectives: Sequence[Objective], limits: Sequence[Limit]) -> Choice:
    """Return the front and the best point, among the points that have the first objective.

    Another objective that a point lacks counts as the worst.
    """
    compared = [o for o in outcomes if objectives and o.means.get(objectives[0].name) is not None]
    finished = [o.point.number for o in outcomes if o.runs]
    left_out = tuple(sorted(set(finished) - {o.point.number for o in compared}))
    differing = tuple(objective for objective in objectives if differs(objective.name, compared))
    differing = differing or tuple(objectives)
    scores = {outcome.point.number: _scores(outcome.means, differing) for outcome in compared}
    within = {
        outcome.point.number: scores[outcome.point.number]
        for outcome in compared
        if all(limit.is_kept(outcome.means.get(limit.name)) for limit in limits)
    }
    front = tuple(pareto.front(scores))
    return Choice(tuple(objectives), differing, tuple(limits), front, pareto.best(within), left_out)


def differs(name: str, outcomes: Sequence[Outcome]) -> bool:
    """Return whether a figure varies between points by more than counts as equal, or some of them lack it."""
    values = [value for outcome in outcomes if (value := outcome.means.get(name)) is not None]
    if 0 < len(values) < len(outcomes):
        return True
    return bool(values) and max(values) - min(values) > pareto.NEAR * max(map(abs, values))


def two_to_draw(choice: Choice) -> tuple[Objective, ...]:
    """Return the first two objectives that differ between points; if fewer than two do, the first two."""
    return choice.differing[:2] if len(choice.differing) > 1 else choice.objectives[:2]


def _scores(means: Figures, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(objective.score(means.get(objective.name)) for objective in objectives)
