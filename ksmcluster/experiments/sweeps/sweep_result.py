"""The result of a sweep: the figures of each point, and the best points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksmcluster.experiments.figures import full_name
from ksmcluster.experiments.sweeps import pareto
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.outcomes import Choice, Findings, Outcome, choose, outcome_of, two_to_draw
from ksmcluster.experiments.sweeps.plan import RunKey
from ksmcluster.experiments.sweeps.run_one import RunRecord
from ksmcluster.experiments.sweeps.stored import Preference, config_of, read_plan, read_records, read_wanted
from ksmcluster.experiments.sweeps.sweep_report import report
from ksmcluster.experiments.sweeps.table import keys, sweep_table
from ksmcluster.report.console import as_text
from ksmcluster.report.plots.files import require_matplotlib
from ksmcluster.report.text import counted
from ksmcluster.results.columns import data_frame
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ksmcluster.report.plots.compaction import BlocksObtained
    from ksmcluster.report.plots.picture import Picture

#: Figures that tables show besides those of the objectives and limits, by command.
MORE_FIGURES = {"compact": ("obtained.before", "obtained.movable_off")}
#: Kinds of pictures of a sweep.
SWEEP_PICTURES = ("pareto", "points", "sensitivity", "obtained")


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The runs of a sweep, point by point and seed by seed.

    Examples:
        >>> found = ksmcluster.sweep("tiny", {"ksm.pages_to_scan": "100..1600x2"})
        >>> print(found)
        >>> found.to_pandas()  # needs pandas
        >>> found.choose("saved_bytes:max,ksmd_cpu_seconds:min", ["ksmd_cpu_percent<=5"]).recommended
    """

    #: The contents of plan.json.
    plan: Mapping[str, Any]
    records: tuple[RunRecord, ...]
    #: The objectives and limits that were given last.
    wanted: Preference

    @cached_property
    def points(self) -> tuple[SweepPoint, ...]:
        """Return the points, by number."""
        return tuple(
            SweepPoint(number, point["settings"]) for number, point in enumerate(self.plan["points"], 1)
        )

    @property
    def title(self) -> str:
        """Return the title of the scenario."""
        configs = (self.config(point.number) for point in self.points)
        titles = (config["simulation"].get("title", "") for config in configs if config)
        return next(filter(None, titles), "A sweep")

    @property
    def failed(self) -> list[RunRecord]:
        """Return the runs that failed."""
        return [record for record in self.records if record.error]

    @property
    def missing(self) -> int:
        """Return the number of missing runs."""
        return len(self.points) * len(self.plan["seeds"]) - len(self.records)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcome of each point."""
        by_point: dict[int, list[RunRecord]] = {point.number: [] for point in self.points}
        for record in self.records:
            by_point[record.key.point].append(record)
        return tuple(outcome_of(point, by_point[point.number]) for point in self.points)

    @cached_property
    def figure_names(self) -> list[str]:
        """Return the names of all figures."""
        return list(dict.fromkeys(name for record in self.records for name in record.figures))

    def to_arrow(self) -> pa.Table:
        """Return the table of sweep.parquet."""
        return sweep_table([point.settings for point in self.points], self.records)

    def to_pandas(self) -> pd.DataFrame:
        """Return `to_arrow` as a data frame. Raises UserError if pandas is not installed."""
        return data_frame(self.to_arrow())

    def choose(self, objectives: str | None = None, limits: Sequence[str] = ()) -> Choice:
        """Return the best points, for texts such as `saved_bytes:max` and `ksmd_cpu_percent<=5`.

        By default, the objectives and limits are those that were given to the sweep last. Without any, the
        objectives are `pareto.OBJECTIVES`, except figures that no point has. Points that lack the first
        objective are not compared; another one that a point lacks counts as the worst.
        """
        objectives = objectives or self.wanted.objectives
        wanted = pareto.parse_objectives(objectives or pareto.OBJECTIVES[self.plan["command"]])
        bounds = pareto.parse_limits(limits or self.wanted.limits)
        if self.figure_names:
            wanted, bounds = pareto.named(wanted, bounds, self.figure_names)
        if objectives is None:
            wanted = tuple(o for o in wanted if any(p.means.get(o.name) is not None for p in self.outcomes))
        return choose(self.outcomes, wanted, bounds)

    def findings(self, objectives: str | None = None, limits: Sequence[str] = ()) -> Findings:
        """Return the content of the report; the arguments are those of `choose`."""
        choice = self.choose(objectives, limits)
        more = MORE_FIGURES.get(self.plan["command"], ())
        return Findings(self.outcomes, choice, len(self.plan["seeds"]), self.missing, more)

    def config(self, number: int) -> Mapping[str, Any]:
        """Return the keys of the scenario at a point, as in config.toml; empty if the scenario is wrong.

        Raises UserError if there is no point with this number, or plan.json has no scenario for it.
        """
        if not 1 <= number <= len(self.points):
            raise UserError(f"--point {number}: the points are 1 to {len(self.points)}")
        return config_of(self.plan["points"][number - 1], number)

    def plot(
        self,
        kind: str | None = None,
        *,
        objectives: str | None = None,
        limits: Sequence[str] = (),
        key: str | None = None,
        figure: str | None = None,
    ) -> Picture:
        """Draw a picture, as `ksmcluster plot` does: a matplotlib figure.

        kind: "pareto", the points by the first two objectives that differ between points, with the
            recommended point; "sensitivity", a figure over the values of a key (by default, the first
            objective over the first key); "points", a bar for each point (by default, of the first two
            objectives that differ); "obtained", the blocks that allocations got at each point (only for
            sweeps of `compact`, which have it by default).

        Raises UserError if there is no such picture, or matplotlib is not installed.
        """
        kind = kind or ("obtained" if self.plan["command"] == "compact" else "pareto")
        if kind not in SWEEP_PICTURES:
            raise UserError(f'a sweep has no picture "{kind}"; choose one of {", ".join(SWEEP_PICTURES)}')
        require_matplotlib(f'picture "{kind}"')
        from ksmcluster.report.plots.sweep import obtained, pareto, points, sensitivity

        if kind == "obtained":
            return obtained(self._blocks(), ", ".join(self.findings().keys) or "scenario")
        choice, table = self.choose(objectives, limits), self.to_arrow()
        two = two_to_draw(choice)
        if kind == "pareto":
            return pareto(table, two, choice.recommended, choice.front)
        name = full_name(figure, self.figure_names, "figure") if figure else choice.objectives[0].name
        if kind == "points":
            return points(table, [name] if figure else [objective.name for objective in two])
        return sensitivity(table, key or keys(table)[0], name)

    def _blocks(self) -> list[BlocksObtained]:
        """Return the blocks that allocations got at each finished point."""
        from ksmcluster.report.plots.compaction import STATES, BlocksObtained

        if self.plan["command"] != "compact":
            raise UserError('a sweep of simulate has no picture "obtained"; use a sweep of compact')
        found = []
        for outcome in filter(lambda outcome: outcome.runs, self.outcomes):
            config = self.config(outcome.point.number)
            label = "\n".join(outcome.point.settings.values()) or config["simulation"]["title"]
            means = {state: f"obtained.{state}" for state in STATES}
            got = {s: outcome.means[mean] or 0 for s, mean in means.items() if mean in outcome.means}
            requested = config["migration"]["attempts"] * config["machine"]["nodes"]
            found.append(BlocksObtained(label, got, requested))
        return found

    def __str__(self) -> str:
        return as_text(report(self.findings()))

    def _repr_html_(self) -> str:
        from ksmcluster.report.html.experiment_cells import sweep_cell

        return sweep_cell(self.title, self.findings())

    def __repr__(self) -> str:
        counts = counted(len(self.points), "point"), counted(len(self.records), "run")
        return f"<SweepResult: {', '.join(counts)}, {len(self.failed)} failed>"


def load_sweep(directory: str | Path) -> SweepResult:
    """Return the sweep in a directory, finished or not. Raises UserError if there is none."""
    folder = Path(directory)
    return sweep_of(read_plan(folder), read_records(folder), read_wanted(folder))


def sweep_of(plan: Mapping[str, Any], records: Mapping[RunKey, RunRecord], wanted: Preference) -> SweepResult:
    """Return the result of the runs done so far, in the order of the plan."""
    points, place = range(1, len(plan["points"]) + 1), {seed: i for i, seed in enumerate(plan["seeds"])}
    keys = sorted(
        (key for key in records if key.point in points and key.seed in place),
        key=lambda key: (key.point, place[key.seed]),
    )
    return SweepResult(plan, tuple(records[key] for key in keys), wanted)
