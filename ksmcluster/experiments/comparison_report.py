"""The text report of a comparison: the keys that differ, then the figures."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmcluster.experiments.comparison import FigureDifference, Key, RunComparison
from ksmcluster.experiments.sweeps.sweep_report import shown
from ksmcluster.report import text
from ksmcluster.results.result import DERIVED

#: The most characters of a name in one line: the table then fits 80 columns.
_NAME_WIDTH = 26
_DERIVED = {statistic.name for statistic in DERIVED} | {"ksmd_cpu_percent"}


def report(found: Sequence[RunComparison], tolerance: float | None) -> RenderableType:
    """Return the report of all comparisons; with a tolerance, figures beyond it are marked."""
    parts: list[RenderableType] = []
    for comparison in found:
        parts += [*_one(comparison, tolerance, several=len(found) > 1), Text()]
    return Group(*parts[:-1])


def _one(comparison: RunComparison, tolerance: float | None, *, several: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(comparison.label, style="bold")] if several else []
    heads = short_names([side.name for side in comparison.sides])
    if comparison.keys:
        parts += [_keys(comparison, heads)]
    else:
        parts += [Text("The scenarios are the same.")]
    if comparison.figures:
        parts += [*_notes(comparison), Text(), _figures(comparison, heads, tolerance)]
        parts += [Text(), Text(f"{comparison.equal} other figures are equal.")]
    else:
        parts += [Text(f"All {comparison.equal} figures are equal.")]
    return parts


def _notes(comparison: RunComparison) -> list[Text]:
    return [part for note in notes(comparison) for part in (Text(), Text(note, style="yellow"))]


def notes(comparison: RunComparison) -> list[str]:
    """Return notes for comparing the figures."""
    times = [side.means.get("simulated_seconds") for side in comparison.sides]
    found = [text.seconds(value) for value in times if value is not None]
    if "ksmd_cpu_seconds" not in comparison.sides[0].means or len(set(found)) < 2:
        return []
    note = f"Simulated time differs ({', '.join(found)}): figures that add up over time are not comparable."
    return [note]


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names without their common folders."""
    common = os.path.commonpath(map(os.path.realpath, names))
    short = [os.path.relpath(os.path.realpath(name), common) for name in names]
    return list(names) if "." in short else short


def in_order(figures: Sequence[FigureDifference]) -> list[FigureDifference]:
    """Return the figures in order: those computed from counters first."""
    return sorted(figures, key=lambda difference: difference.name not in _DERIVED)


def _table(head: str, heads: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(head, overflow="fold")
    for name in heads:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _keys(comparison: RunComparison, heads: Sequence[str]) -> Table:
    table = _table("key of the scenario", heads)
    for name, values in comparison.keys.items():
        table.add_row(Text(f"  {name}"), *(Text(key_text(value)) for value in values))
    return table


def key_text(value: Key) -> str:
    """Return the value of a key as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def _figures(comparison: RunComparison, heads: Sequence[str], tolerance: float | None) -> Table:
    table = _table("figure", heads)
    changes = [f"{name}, change" for name in heads[1:]] if len(heads) > 2 else ["change"]
    for head in changes:
        table.add_column(Text(head), justify="right", overflow="fold")
    has_noise = any(difference.noise is not None for difference in comparison.figures)
    if has_noise:
        table.add_column("noise", justify="right")
    for difference in in_order(comparison.figures):
        style = "red" if tolerance is not None and difference.is_beyond(tolerance) else ""
        noise = [_noise(difference)] if has_noise else []
        table.add_row(*_cells(difference), *noise, style=style)
    return table


def _cells(difference: FigureDifference) -> list[str | Text]:
    values = (shown(difference.name, value) for value in difference.values)
    return [_in_lines(difference.name), *values, *map(change_text, difference.relative[1:])]


def _in_lines(name: str) -> Text:
    """Return an indented name; a name that would be too wide is broken after an underscore."""
    end = name.rfind("_", 0, _NAME_WIDTH) + 1 if len(name) > _NAME_WIDTH else 0
    return Text(f"  {name[:end]}\n  {name[end:]}" if end else f"  {name}")


def change_text(relative: float | None) -> str:
    """Return a relative difference in percent."""
    return "-" if relative is None else f"{100 * relative:+.2f} %"


def _noise(difference: FigureDifference) -> str:
    return "" if difference.noise is None else f"± {shown(difference.name, difference.noise)}"
