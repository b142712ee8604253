"""The results of a benchmark: numbers, of which larger is better, and tables for people."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, measured once in each repetition; larger is better."""

    #: Contains the sizes, so that measures with equal names can be compared.
    name: str
    unit: str
    values: tuple[float, ...]
    #: Further information, such as the rate per second on this host.
    extra: str = ""

    @property
    def value(self) -> float:
        """Return the median of the repetitions."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class BenchOutcome:
    """The results of one benchmark."""

    measures: tuple[Measure, ...]
    #: Titles and tables, in the order of display.
    tables: tuple[tuple[str, Table], ...]


def figure(value: float) -> str:
    """Format a number with three significant digits, or as a whole number if it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: tuple[float, ...]) -> str:
    """Format the smallest and the largest of some values: `1.2 to 1.5`."""
    low, high = figure(min(values)), figure(max(values))
    return low if low == high else f"{low} to {high}"
