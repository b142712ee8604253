"""Compares runs with the first of them, and sweeps point by point."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksmcluster.config import resolved_toml
from ksmcluster.experiments.comparison import FigureDifference, Key, RunComparison, Side, flat_keys
from ksmcluster.experiments.figures import Figure, figures
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.stored import PLAN
from ksmcluster.experiments.sweeps.sweep_result import SweepResult, load_sweep
from ksmcluster.report.text import counted
from ksmcluster.results.columns import data_frame
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.loading import load_result
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Comparisons(tuple[RunComparison, ...]):
    """The differences between runs; for sweeps, point by point.

    >>> difference = ksmcluster.compare("before", "after")
    >>> print(difference)
    >>> difference[0].figures_by_name["saved_bytes"].relative
    """

    __slots__ = ()

    def to_arrow(self) -> pa.Table:
        """Return a row for each figure that differs at a point, with a column for each side."""
        import pyarrow as pa

        return pa.Table.from_pylist([row for comparison in self for row in comparison.rows()])

    def to_pandas(self) -> pd.DataFrame:
        """Return `to_arrow` as a data frame. Raises UserError if pandas is not installed."""
        return data_frame(self.to_arrow())

    def __str__(self) -> str:
        from ksmcluster.experiments.comparison_report import report
        from ksmcluster.report.console import as_text

        return as_text(report(self, None))

    def _repr_html_(self) -> str:
        from ksmcluster.report.html.experiment_cells import comparison_cell

        return comparison_cell(self)

    def __repr__(self) -> str:
        compared = [comparison for comparison in self if not comparison.absent]
        sides = " and ".join(side.name for side in compared[0].sides)
        differing = sum(len(comparison.figures) for comparison in compared)
        points = f" at {counted(len(compared), 'point')}" if len(self) > 1 else ""
        return f"<Comparisons: {sides}: {counted(differing, 'figure')} differ{points}>"


Loaded = Result | CompactionResult | SweepResult
Compared = str | Path | Loaded


def compare(*sources: Compared) -> Comparisons:
    """Compare outputs of simulate or compact, or sweeps, with the first of them.

    Each source is a directory or a result. Runs give one comparison; sweeps give one for each point, in which
    nothing is compared if some of them lack the point.
    Raises UserError if there are fewer than two sources, if a directory has no results, or if the sources
    have nothing in common or are of different commands.
    """
    if len(sources) < 2:
        raise UserError("compare: give at least two directories")
    names = [_name(source, number) for number, source in enumerate(sources, 1)]
    loaded = [(_loaded(source), _folder(source)) for source in sources]
    commands = {_command(source): name for (source, _), name in zip(loaded, names, strict=True)}
    if len(commands) > 1:
        each = " and ".join(f"{name} of {command}" for command, name in commands.items())
        raise UserError(f"compare: {each}: give results of one command")
    sides = [dict(_sides(source, name, folder)) for (source, folder), name in zip(loaded, names, strict=True)]
    labels = dict.fromkeys(label for of_source in sides for label in of_source)
    found = Comparisons(_at(label, names, sides) for label in labels)
    if all(comparison.absent for comparison in found):
        raise UserError(
            f"{names[0]} and {names[1]} have no point in common; compare runs with runs, "
            "and sweeps with sweeps over the same keys"
        )
    return found


def _at(label: str, names: Sequence[str], sides: Sequence[Mapping[str, Side]]) -> RunComparison:
    """Compare the sources at a point."""
    there = [of_source[label] for of_source in sides if label in of_source]
    absent = tuple(name for name, of_source in zip(names, sides, strict=True) if label not in of_source)
    if absent:
        return RunComparison(label, tuple(there), {}, (), 0, absent)
    return _comparison(label, there)


def _name(source: Compared, number: int) -> str:
    """Return the name of the `number`-th source."""
    return f"{source}" if isinstance(source, str | Path) else f"result {number}"


def _folder(source: Compared) -> Path:
    return Path(source) if isinstance(source, str | Path) else Path()


def _loaded(source: Compared) -> Loaded:
    if not isinstance(source, str | Path):
        return source
    return load_sweep(source) if (Path(source) / PLAN).exists() else load_result(Path(source))


def _command(source: Loaded) -> str:
    """Return the command whose result it is."""
    if isinstance(source, SweepResult):
        return str(source.plan["command"])
    return "simulate" if isinstance(source, Result) else "compact"


def _sides(source: Loaded, name: str, folder: Path) -> Iterator[tuple[str, Side]]:
    """Yield the points of a sweep with their labels, or a run as a single point without a label."""
    if isinstance(source, SweepResult):
        for outcome in source.outcomes:
            if outcome.runs:
                keys = _keys(source.config(outcome.point.number), folder)
                yield outcome.point.label, Side(name, keys, outcome.means, outcome.noise)
    else:
        keys = _keys(tomllib.loads(resolved_toml(source.config)), folder)
        yield SweepPoint(1, {}).label, Side(name, keys, figures(source), {})


def _keys(config: Mapping[str, Any], folder: Path) -> dict[str, Key]:
    """Return the keys of a scenario by dotted path; its relative paths refer to `folder`."""
    found = flat_keys(config)
    snapshots = {name: value for name, value in found.items() if name.endswith("].snapshot")}
    return found | {name: os.path.realpath(folder / str(path)) for name, path in snapshots.items()}


def _comparison(label: str, sides: Sequence[Side]) -> RunComparison:
    names = dict.fromkeys(name for side in sides for name in side.means)
    rows = {name: tuple(side.means.get(name) for side in sides) for name in names}
    differing = {name: values for name, values in rows.items() if len(set(values)) > 1}
    return RunComparison(
        label,
        tuple(sides),
        dict(_differing_keys(sides)),
        tuple(_difference(name, values, sides) for name, values in differing.items()),
        len(rows) - len(differing),
    )


def _difference(name: str, values: tuple[Figure, ...], sides: Sequence[Side]) -> FigureDifference:
    noise = [side.noise[name] for side in sides if name in side.noise]
    first = values[0]
    relative = tuple(None if value is None or not first else (value - first) / abs(first) for value in values)
    return FigureDifference(name, values, relative, max(noise, default=None))


def _differing_keys(sides: Sequence[Side]) -> Iterator[tuple[str, tuple[Key, ...]]]:
    for name in dict.fromkeys(name for side in sides for name in side.keys):
        values = tuple(side.keys.get(name) for side in sides)
        if len(set(values)) > 1:
            yield name, values
