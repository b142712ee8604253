"""The runs of a sweep: a scenario for each point and seed, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from actors.run_options import RunOptions
from cluster.spec.errors import SimulationError
from cluster.spec.limits import MOST_INTEGER, MOST_POINTS
from ksmcluster.api.keywords import check_address
from ksmcluster.config import Overrides, Scenario, load_either, resolved_toml
from ksmcluster.config.compaction import CompactionScenario
from ksmcluster.config.overrides import parse_value
from ksmcluster.experiments.sweeps.axes import SweepPoint, overrides_of
from ksmcluster.results.directory import relative_path
from ksmcluster.results.identity import config_digest
from ksmcluster.system.errors import UserError
from ksmcluster.system.version import __version__

AnyScenario = Scenario | CompactionScenario
Source = str | os.PathLike[str] | Mapping[str, Any]
_RUN_OPTIONS = ("engine", "nodes_per_actor", "migration_actors")


class RunKey(NamedTuple):
    """Identifies a run of a sweep."""

    point: int
    seed: int


@dataclass(frozen=True, slots=True)
class Task:
    """One run to carry out. `passes_rows`: also keep the figures of each pass."""

    key: RunKey
    scenario: AnyScenario
    options: RunOptions
    passes_rows: bool


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """A point with its scenario, or with the error in it."""

    point: SweepPoint
    scenario: AnyScenario | None
    options: RunOptions
    error: str = ""

    def with_seed(self, seed: int) -> AnyScenario:
        """Return the scenario with this seed."""
        assert self.scenario is not None
        simulation = self.scenario.simulation.model_copy(update={"seed": seed})
        return self.scenario.model_copy(update={"simulation": simulation})


@dataclass(frozen=True, slots=True)
class Plan:
    """All runs of a sweep."""

    #: "simulate" or "compact".
    command: str
    points: tuple[PlannedPoint, ...]
    seeds: tuple[int, ...]
    passes_rows: bool

    @property
    def keys(self) -> list[RunKey]:
        """Return all runs: point by point, seed by seed."""
        return [RunKey(planned.point.number, seed) for planned in self.points for seed in self.seeds]

    def task(self, key: RunKey) -> Task:
        """Return a run of a point that has a scenario."""
        planned = self.points[key.point - 1]
        return Task(key, planned.with_seed(key.seed), planned.options, self.passes_rows)

    def describe(self, directory: Path | None = None) -> dict[str, Any]:
        """Return the contents of plan.json in a directory."""
        return {
            "schema_version": 1,
            "ksmcluster_version": __version__,
            "command": self.command,
            "seeds": list(self.seeds),
            "passes_rows": self.passes_rows,
            "points": [_described(planned, directory) for planned in self.points],
        }


def _described(planned: PlannedPoint, directory: Path | None) -> dict[str, Any]:
    """Describe a point: `digest` identifies its scenario; paths in `config` are relative to the directory."""
    settings, scenario = planned.point.settings, planned.scenario
    if scenario is None:
        return {"settings": settings, "digest": planned.error, "config": ""}
    config = resolved_toml(scenario, lambda path: relative_path(path, directory) if directory else path)
    return {"settings": settings, "digest": config_digest(scenario), "config": config}


def make_plan(
    source: Source,
    points: Sequence[SweepPoint],
    base: Overrides,
    options: RunOptions,
    *,
    seeds: int = 1,
    passes_rows: bool = False,
) -> Plan:
    """Check the scenario of each point.

    A point with a wrong scenario fails alone. Raises UserError if all are wrong, or if commands are mixed.
    """
    if len(points) * seeds > MOST_POINTS:
        raise UserError(f"--seeds: there are more than {MOST_POINTS:,} runs; give fewer seeds or points")
    planned = tuple(_planned(source, point, base, options) for point in points)
    scenarios = [point.scenario for point in planned if point.scenario is not None]
    if not scenarios:
        raise UserError(_as_varied(planned[0].error, planned[0].point))
    if len({type(scenario) for scenario in scenarios}) > 1:
        raise UserError("some points are scenarios of `simulate`, others of `compact`; run a sweep for each")
    if not any(point.options.on_ray for point in planned if point.scenario is not None):
        check_address(options)
    command = "simulate" if isinstance(scenarios[0], Scenario) else "compact"
    if passes_rows and command == "compact":
        raise UserError("--passes-rows is for scenarios of `simulate`; `compact` has no passes")
    first = scenarios[0].simulation.seed
    if first + seeds - 1 > MOST_INTEGER:
        raise UserError(f"--seeds: the last seed would be above {MOST_INTEGER}; begin with a lower --seed")
    return Plan(command, planned, tuple(range(first, first + seeds)), passes_rows)


def _planned(source: Source, point: SweepPoint, base: Overrides, options: RunOptions) -> PlannedPoint:
    try:
        changes = {name: parse_value(point.settings[name]) for name in _RUN_OPTIONS if name in point.settings}
        own = replace(options, **changes)
        return PlannedPoint(point, load_either(source, overrides_of(point.settings, base)), own)
    except (SimulationError, UserError, ValueError) as error:
        return PlannedPoint(point, None, options, str(error))


def _as_varied(error: str, point: SweepPoint) -> str:
    """Return the lines of an error with the option that gave the keys of the point."""
    for key in point.settings:
        error = error.replace(f"--set {key}:", f"--vary {key}:")
    return error
