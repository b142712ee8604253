"""The text report of a comparison: the keys that differ, then the figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmcluster.experiments.comparison import FigureDifference, Key, RunComparison
from ksmcluster.experiments.sweeps.sweep_report import shown
from ksmcluster.report import text
from ksmcluster.results.result import DERIVED

#: In front of a figure that differs by more than the tolerance.
MARK = "!"
#: The most characters of a name in one line: the table then fits 80 columns.
_NAME_WIDTH = 26
_DERIVED = {statistic.name for statistic in DERIVED} | {"ksmd_cpu_percent"}


def report(found: Sequence[RunComparison], tolerance: float | None) -> RenderableType:
    """Return the report of all comparisons; with a tolerance, figures beyond it are marked."""
    parts: list[RenderableType] = []
    several, equal = len(found) > 1, 0
    for comparison in found:
        if comparison.absent:
            continue
        if several and not (comparison.keys or comparison.figures):
            equal += 1
        else:
            parts += [*_one(comparison, tolerance, several=several), Text()]
    if equal:
        parts += [Text(f"{text.counted(equal, 'point')}: all figures are equal."), Text()]
    for note in absences(found):
        parts += [Text(note, style="yellow"), Text()]
    return Group(*parts[:-1])


def absences(found: Sequence[RunComparison]) -> list[str]:
    """Say how many points of sweeps are not compared, as others lack them."""
    counts = Counter((comparison.sides[0].name, comparison.absent) for comparison in found)
    return [
        f"{text.counted(count, 'point')} of {name}: not in {' and '.join(absent)}, or not finished there."
        for (name, absent), count in counts.items()
        if absent
    ]


def _one(comparison: RunComparison, tolerance: float | None, *, several: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(comparison.label, style="bold")] if several else []
    heads = short_names([side.name for side in comparison.sides])
    if comparison.keys:
        parts += [_keys(comparison, heads)]
    else:
        parts += [Text("The scenarios are the same.")]
    if comparison.figures:
        parts += [*_notes(comparison), Text(), _figures(comparison, heads, tolerance), Text()]
        if noisy := len(comparison.figures) - len(comparison.beyond_noise):
            parts += [Text(f"Within the noise: {text.counted(noisy, 'other figure')}.")]
        parts += [Text(f"{comparison.equal} other figures are equal.")]
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
    for difference in in_order(comparison.beyond_noise):
        is_beyond = tolerance is not None and difference.is_beyond(tolerance)
        noise = [_noise(difference)] if has_noise else []
        name = _in_lines(difference.name, MARK if is_beyond else " ")
        table.add_row(name, *_cells(difference), *noise, style="red" if is_beyond else "")
    return table


def _cells(difference: FigureDifference) -> list[str]:
    values = (shown(difference.name, value) for value in difference.values)
    return [*values, *map(change_text, difference.relative[1:])]


def _in_lines(name: str, mark: str) -> Text:
    """Return a name behind a mark; a name that would be too wide is broken after an underscore."""
    end = name.rfind("_", 0, _NAME_WIDTH) + 1 if len(name) > _NAME_WIDTH else 0
    return Text(f"{mark} {name[:end]}\n  {name[end:]}" if end else f"{mark} {name}")


def change_text(relative: float | None) -> str:
    """Return a relative difference in percent."""
    return "-" if relative is None else f"{100 * relative:+.2f} %"


def _noise(difference: FigureDifference) -> str:
    """Return the noise as the change is given: relative to the first value, if that is not 0."""
    if difference.noise is None:
        return ""
    first = difference.values[0]
    if not first:
        return f"± {shown(difference.name, difference.noise)}"
    return f"± {100 * difference.noise / abs(first):.2f} %"
