"""The differences between runs: keys of their scenarios, and every figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ksmcluster.experiments.figures import Figure, Figures, unit_of

Key = str | int | float | bool | None


class Side(NamedTuple):
    """One side of a comparison: a run, or a point of a sweep with all its seeds."""

    name: str
    keys: Mapping[str, Key]
    means: Figures
    #: Standard deviations over seeds, if there are several.
    noise: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FigureDifference:
    """A figure that differs: its values by side, and their differences from the first one."""

    name: str
    values: tuple[Figure, ...]
    #: Relative difference of each side from the first one; None if it is undefined.
    relative: tuple[float | None, ...]
    #: The largest standard deviation over seeds of any side; None without several seeds.
    noise: float | None

    def is_beyond(self, tolerance: float) -> bool:
        """Return whether a side differs from the first one by more than both the tolerance and the noise."""
        first, *others = self.values
        if first is None:
            return any(value is not None for value in others)
        most = tolerance * abs(first) + (self.noise or 0.0)
        return any(value is None or abs(value - first) > most for value in others)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """The differences between the sides of one comparison; `label` names the common point."""

    label: str
    sides: tuple[Side, ...]
    #: Values, by side, of the keys that differ; None if a scenario lacks the key.
    keys: Mapping[str, tuple[Key, ...]]
    figures: tuple[FigureDifference, ...]
    #: Number of equal figures.
    equal: int
    #: Names of the sweeps that lack this point, or have no finished run of it; then nothing is compared.
    absent: tuple[str, ...] = ()

    @property
    def figures_by_name(self) -> dict[str, FigureDifference]:
        """Return the figures that differ, by name."""
        return {difference.name: difference for difference in self.figures}

    def beyond(self, tolerance: float) -> list[FigureDifference]:
        """Return the figures that differ by more than both the tolerance and the noise."""
        return [difference for difference in self.figures if difference.is_beyond(tolerance)]

    @property
    def beyond_noise(self) -> list[FigureDifference]:
        """Return the figures that differ by more than the noise."""
        return self.beyond(0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each figure that differs: its values by side, and the change from the first."""
        return [
            {
                "point": self.label,
                "figure": difference.name,
                "unit": unit_of(difference.name),
                **{side.name: value for side, value in zip(self.sides, difference.values, strict=True)},
                **{
                    f"{side.name}, change": change
                    for side, change in zip(self.sides[1:], difference.relative[1:], strict=True)
                },
                "noise": difference.noise,
            }
            for difference in self.figures
        ]

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
            "absent": list(self.absent),
        }


def flat_keys(config: Mapping[str, Any]) -> dict[str, Key]:
    """Return the keys of a scenario by dotted path."""
    return dict(_flat("", config))


def _flat(path: str, value: Any) -> Iterator[tuple[str, Key]]:
    """Yield the keys of a scenario by dotted path; a list of plain values is one key."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{path}.{name}".removeprefix("."), part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from _flat(f"{path}[{index}]", part)
    else:
        yield path, str(value) if isinstance(value, list) else value
