"""The section of a report about a sweep, with its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from markupsafe import Markup

from ksmcluster.experiments.knobs import shell_lines
from ksmcluster.experiments.sweeps.outcomes import Findings, differs
from ksmcluster.experiments.sweeps.sweep_report import notes
from ksmcluster.experiments.sweeps.sweep_result import SweepResult
from ksmcluster.report import text
from ksmcluster.report.html import compacted, simulated
from ksmcluster.report.html.figures import inline
from ksmcluster.report.html.sections import Facts, HtmlTable
from ksmcluster.report.html.swept import answer, failures, figures_table, points_table, question
from ksmcluster.report.plots.style import MOST_BARS

#: The most values of a key that are listed one by one.
MOST_VALUES = 12


class SweepSections(NamedTuple):
    """The sections of a report about a sweep, without pictures."""

    title: str
    question: str
    asked: Facts
    #: The answer, in one sentence.
    answer: str
    #: The points, and the ranges of their figures.
    tables: Sequence[HtmlTable]
    #: Errors by point.
    failed: Facts
    notes: Sequence[str]
    #: Shell commands for a real machine; none unless the recommended point has a ksmd.
    knobs: Sequence[str]
    #: The point whose configuration is shown, and the configuration.
    shown_point: int
    toml: str
    limits: Sequence[str]


def sweep_sections(found: SweepResult) -> SweepSections:
    """Return the report's sections about a sweep."""
    findings = found.findings()
    simulations = found.plan["command"] == "simulate"
    number = findings.choice.recommended or next(
        (outcome.point.number for outcome in found.outcomes if outcome.runs), 1
    )
    return SweepSections(
        found.title,
        question(findings),
        _asked(found, findings),
        answer(findings),
        [points_table(findings), *figures_table(findings)],
        failures(found.outcomes),
        notes(found.outcomes),
        _knobs(found, findings.choice.recommended),
        number,
        found.plan["points"][number - 1]["config"],
        simulated.LIMITS if simulations else compacted.LIMITS,
    )


def sweep_pictures(found: SweepResult, prefix: str) -> list[Markup]:
    """Return pictures of the Pareto front, and of each key's influence or of all points.

    Their ids begin with the prefix.
    """
    findings = found.findings()
    finished = [outcome for outcome in found.outcomes if outcome.runs]
    done = [outcome.point for outcome in finished]
    if not done:
        return []
    differing = [o.name for o in findings.choice.objectives if differs(o.name, finished)]
    drawn = [] if found.plan["command"] == "simulate" or len(done) > MOST_BARS else [found.plot("obtained")]
    drawn += [found.plot("pareto")] if len(differing) > 1 else []
    values = {key: {point.settings[key] for point in done} for key in findings.keys}
    if len(done) < prod(map(len, values.values())) and len(done) <= MOST_BARS:
        # Values were paired, so there is no line over those of one key.
        drawn.append(found.plot("points"))
        values = {}
    for key in [key for key, several in values.items() if len(several) > 1]:
        names = differing[:2] or findings.choice.figures[:1]
        drawn += [found.plot("sensitivity", key=key, figure=name) for name in names]
    return [inline(picture, f"{prefix}{number}-") for number, picture in enumerate(drawn)]


def _asked(found: SweepResult, findings: Findings) -> Facts:
    varied = {key: _values([point.settings[key] for point in found.points]) for key in findings.keys}
    return {
        **varied,
        "points": f"{len(found.points):,}",
        "runs per point": text.counted(findings.seeds, "seed"),
        "limits": ", ".join(map(str, findings.choice.limits)) or "none",
        "failed runs": f"{len(found.failed):,}",
        "missing runs": f"{found.missing:,}",
    }


def _values(texts: Sequence[str]) -> str:
    values = list(dict.fromkeys(texts))
    if len(values) > MOST_VALUES:
        return f"{', '.join(values[: MOST_VALUES - 1])}, ... {values[-1]} ({len(values):,} values)"
    return ", ".join(values)


def _knobs(found: SweepResult, recommended: int | None) -> list[str]:
    ksm = found.config(recommended).get("ksm") if recommended is not None else None
    return shell_lines(ksm) if ksm is not None else []
