"""The HTML report of a run of either command."""

from __future__ import annotations

from ksmcluster.report.html import compacted, simulated
from ksmcluster.report.html.sections import Sections
from ksmcluster.report.run_data import RunData


def sections_of(run: RunData) -> Sections:
    """Return the report's sections about a run."""
    return simulated.sections(run) if run.command == "simulate" else compacted.sections(run)
