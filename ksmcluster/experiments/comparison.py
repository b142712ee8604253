"""What differs between runs: keys of their scenarios, and every figure."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ksmcluster.config import resolved_toml
from ksmcluster.experiments.figures import Figure, Figures, figures, unit_of
from ksmcluster.experiments.sweeps import journal
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.sweep_result import load_sweep
from ksmcluster.results.loading import load_result
from ksmcluster.system.errors import UserError

Key = str | int | float | bool | None


class Side(NamedTuple):
    """One of the things compared: a run, or a point of a sweep with all its seeds."""

    name: str
    keys: Mapping[str, Key]
    means: Figures
    #: Standard deviations over seeds, where there are several.
    noise: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FigureDifference:
    """A figure that differs: its values by side, and by how much they differ from the first one."""

    name: str
    values: tuple[Figure, ...]
    #: Of each side, in relation to the first one; None if there is no number.
    relative: tuple[float | None, ...]
    #: The largest standard deviation over seeds of any side; None without several seeds.
    noise: float | None

    def is_beyond(self, tolerance: float) -> bool:
        """Return whether any side differs from the first one by more than this part of it, and than noise."""
        first, *others = self.values
        if first is None:
            return any(value is not None for value in others)
        most = tolerance * abs(first) + (self.noise or 0.0)
        return any(value is None or abs(value - first) > most for value in others)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What differs between the sides of one comparison; `label`: what all of them are."""

    label: str
    sides: tuple[Side, ...]
    #: Values by side of the keys that differ; None where a scenario lacks the key.
    keys: Mapping[str, tuple[Key, ...]]
    figures: tuple[FigureDifference, ...]
    #: How many figures are equal.
    equal: int

    @property
    def figures_by_name(self) -> dict[str, FigureDifference]:
        """Return the figures that differ, by name."""
        return {difference.name: difference for difference in self.figures}

    def beyond(self, tolerance: float) -> list[FigureDifference]:
        """Return the figures that differ by more than this part of their first value, and than noise."""
        return [difference for difference in self.figures if difference.is_beyond(tolerance)]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return {
            "point": self.label,
            "sides": [side.name for side in self.sides],
            "keys": {name: list(values) for name, values in self.keys.items()},
            "figures": [
                {
                    "name": difference.name,
                    "unit": unit_of(difference.name),
                    "values": list(difference.values),
                    "relative": list(difference.relative),
                    "noise": difference.noise,
                }
                for difference in self.figures
            ],
            "equal": self.equal,
        }


def compare(*directories: str | Path) -> list[RunComparison]:
    """Compare outputs of simulate or compact, or sweeps, with the first of them.

    Runs give one comparison; sweeps one for each point that all of them have. Raises UserError if there are
    fewer than two directories, if one is neither, or if they have nothing in common.
    """
    folders = [Path(directory) for directory in directories]
    if len(folders) < 2:
        raise UserError("compare: name at least two directories")
    sides = [dict(_sides(folder)) for folder in folders]
    common = [label for label in sides[0] if all(label in others for others in sides[1:])]
    if not common:
        raise UserError(
            f"{folders[0]} and {folders[1]}: they have no point in common; compare runs with runs, "
            "and sweeps with sweeps over the same keys"
        )
    return [_comparison(label, [of_folder[label] for of_folder in sides]) for label in common]


def _sides(folder: Path) -> Iterator[tuple[str, Side]]:
    """Yield the points of a sweep under their labels, and a run as a point at which nothing varies."""
    if not (folder / journal.PLAN).exists():
        result = load_result(folder)
        keys = _keys(tomllib.loads(resolved_toml(result.config)), folder)
        yield SweepPoint(1, {}).label, Side(str(folder), keys, figures(result), {})
        return
    found = load_sweep(folder)
    for outcome in found.outcomes:
        if outcome.runs:
            keys = _keys(found.config(outcome.point.number), folder)
            yield outcome.point.label, Side(str(folder), keys, outcome.means, outcome.noise)


def _keys(config: Mapping[str, Any], folder: Path) -> dict[str, Key]:
    """Return the keys of a scenario by dotted path; `folder`: where its paths start."""
    found = dict(_flat("", config))
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


def _flat(path: str, value: Any) -> Iterator[tuple[str, Key]]:
    """Yield the keys of a scenario by dotted path; lists of plain values in one."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{path}.{name}".removeprefix("."), part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from _flat(f"{path}[{index}]", part)
    else:
        yield path, str(value) if isinstance(value, list) else value
