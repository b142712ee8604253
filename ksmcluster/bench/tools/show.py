"""Shows the results of a benchmark on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ksmcluster.bench.tools.measure import BenchOutcome, figure
from ksmcluster.bench.tools.tracker import Change
from ksmcluster.report.console import plain_table


def shown_outcome(outcome: BenchOutcome) -> RenderableType:
    """Return the tables, one below the other."""
    parts: list[RenderableType] = []
    for title, rows in outcome.tables:
        parts += [Text(title, style="bold cyan"), rows, Text()]
    return Group(*parts)


def shown_changes(changes: Sequence[Change], most: float) -> RenderableType:
    """Return each measure beside its baseline, and a line for each that is worse by more than `most`."""
    rows = plain_table("against the baseline", "before", "now", "change")
    for change in changes:
        style = "red" if change.share > most else ""
        percent = f"{-change.share:+.1%}".replace("%", " %")
        rows.add_row(
            Text(f"  {change.name}"), figure(change.before), figure(change.now), Text(percent, style)
        )
    worse = [change.name for change in changes if change.share > most]
    verdicts = [
        Text(f"worse by more than {most:.0%}: {name}".replace("%", " %"), style="red") for name in worse
    ]
    return Group(rows, *(verdicts or [Text(f"nothing is worse by more than {most:.0%}".replace("%", " %"))]))
