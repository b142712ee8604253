"""What a benchmark has found: numbers of which more is better, and tables to be read."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, measured once in each repetition; larger is better."""

    #: Sizes are part of it: what has the same name may be compared.
    name: str
    unit: str
    values: tuple[float, ...]
    #: What else there is to say, such as the rate in seconds of this host.
    extra: str = ""

    @property
    def value(self) -> float:
        """The median of the repetitions."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class BenchOutcome:
    """Of one benchmark."""

    measures: tuple[Measure, ...]
    #: Titles and tables, in the order in which to show them.
    tables: tuple[tuple[str, Table], ...]


def figure(value: float) -> str:
    """A number in three digits that matter, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: tuple[float, ...]) -> str:
    """The least and the greatest of some values: `1.2 to 1.5`."""
    low, high = figure(min(values)), figure(max(values))
    return low if low == high else f"{low} to {high}"
