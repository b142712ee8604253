"""Results as cells of a notebook."""

from __future__ import annotations

from ksmcluster.report.html.describe import sections_of
from ksmcluster.report.html.templating import rendered
from ksmcluster.report.run_data import RunData


def cell(run: RunData) -> str:
    """Return the answer and its figures, as a fragment of HTML."""
    found = sections_of(run)
    facts = {**found.found, **found.time, **found.cost}
    title = run.summary["title"] or run.command
    return rendered("cell.html", title=title, answer=found.answer, facts=facts, tables=())
