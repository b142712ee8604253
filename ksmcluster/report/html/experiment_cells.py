"""Sweeps and comparisons as cells of a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from ksmcluster.experiments.comparison import RunComparison
from ksmcluster.experiments.comparison_report import (
    absences,
    change_text,
    in_order,
    key_text,
    notes,
    short_names,
)
from ksmcluster.experiments.sweeps.outcomes import Findings
from ksmcluster.experiments.sweeps.sweep_report import shown
from ksmcluster.report.html.sections import HtmlTable
from ksmcluster.report.html.swept import answer, failures, points_table
from ksmcluster.report.html.templating import rendered

#: The most figures of a comparison in a cell; `to_pandas` has all.
MOST_FIGURES = 30


def sweep_cell(title: str, found: Findings) -> str:
    """Return the best point of a sweep, and all points."""
    tables = [points_table(found)]
    return rendered(
        "cell.html", title=title, answer=answer(found), facts=failures(found.outcomes), tables=tables
    )


def comparison_cell(found: Sequence[RunComparison]) -> str:
    """Return the differences, point by point."""
    several = len(found) > 1
    tables = [table for comparison in found for table in _differences(comparison, several)]
    differing = sum(len(comparison.figures) for comparison in found)
    equal = sum(comparison.equal for comparison in found)
    said = [f"{differing:,} figures differ, {equal:,} are equal."]
    said += absences(found)
    said += dict.fromkeys(note for comparison in found for note in notes(comparison))
    return rendered("cell.html", title="Comparisons", answer=" ".join(said), facts={}, tables=tables)


def _differences(comparison: RunComparison, several: bool) -> list[HtmlTable]:
    heads = short_names([side.name for side in comparison.sides])
    keys = [(name, *map(key_text, values)) for name, values in comparison.keys.items()]
    figures = [
        (
            difference.name,
            *(shown(difference.name, value) for value in difference.values),
            *map(change_text, difference.relative[1:]),
        )
        for difference in in_order(comparison.figures)[:MOST_FIGURES]
    ]
    changes = [f"{head}, change" for head in heads[1:]] if len(heads) > 2 else ["change"]
    more = len(comparison.figures) - len(figures)
    note = f"{more:,} more differ; to_pandas() has all." if more else ""
    at = f"{comparison.label}: " if several else ""
    tables = [
        HtmlTable(f"{at}keys that differ", ("key", *heads), keys),
        HtmlTable(f"{at}figures that differ", ("figure", *heads, *changes), figures, note),
    ]
    return [table for table in tables if table.rows]
