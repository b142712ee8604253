"""The outcomes of a sweep in reports and notebook cells."""

from __future__ import annotations

from collections.abc import Sequence

from ksmcluster.experiments.sweeps.outcomes import Choice, Findings, Outcome
from ksmcluster.experiments.sweeps.sweep_report import (
    MOST_POINTS,
    cell,
    in_table,
    left_out,
    same_everywhere,
    shown,
    why,
)
from ksmcluster.report import text
from ksmcluster.report.html.sections import Facts, HtmlTable


def answer(findings: Findings) -> str:
    """Say which point is best, in one sentence."""
    choice = findings.choice
    limits = " and ".join(map(str, choice.limits))
    within = f" within {limits}" if limits else ""
    if choice.recommended is None:
        return f"No point is recommended{within}."
    best = findings.outcomes[choice.recommended - 1]
    figures = ", ".join(f"{name} {cell(best, name)}" for name in choice.figures)
    missing = (
        f" Not all is known: {text.counted(findings.missing, 'run')} missing." if findings.missing else ""
    )
    return f"Point {best.point.number} ({best.point.label}) is recommended{within}: {figures}.{missing}"


def question(findings: Findings) -> str:
    """Return the question that the sweep answers."""
    keys = " and ".join(findings.keys) or "the scenario"
    wanted = ", ".join(
        f"{'high' if objective.most else 'low'} {objective.name}" for objective in findings.choice.objectives
    )
    return f"Which values of {keys} are best? The goals, most important first: {wanted}."


def points_table(findings: Findings) -> HtmlTable:
    """Return the points, with the figures of the objectives and limits."""
    keys, figures = findings.keys, findings.figures
    rows = [
        (
            f"{outcome.point.number}",
            *(outcome.point.settings.get(key, "") for key in keys),
            *(cell(outcome, name) for name in figures),
            _mark(outcome, findings.choice),
        )
        for outcome in in_table(findings)
    ]
    note = (
        f"The Pareto front of {text.counted(len(findings.outcomes), 'point')}; sweep.parquet has all points."
    )
    return HtmlTable(
        "Points",
        ("point", *keys, *figures, "choice"),
        rows,
        note if len(findings.outcomes) > MOST_POINTS else _about_front(findings.choice),
        stacked=True,
    )


def _about_front(choice: Choice) -> str:
    if not choice.front:
        return ""
    wanted = ", ".join(map(str, choice.differing))
    said = [
        f"A point is on the Pareto front if no other point is better in one of {wanted} and worse in none.",
        same_everywhere(choice),
        left_out(choice),
        why(choice, f"Point {choice.recommended}") if choice.recommended is not None else "",
    ]
    return " ".join(filter(None, said))


def _mark(outcome: Outcome, choice: Choice) -> str:
    if outcome.errors:
        return "failed"
    if outcome.point.number == choice.recommended:
        return "recommended"
    return "on front" if outcome.point.number in choice.front else ""


def figures_table(findings: Findings) -> list[HtmlTable]:
    """Return the figures of the recommended point, and their ranges over all points."""
    choice = findings.choice
    if choice.recommended is None:
        return []
    best = findings.outcomes[choice.recommended - 1].means
    rows = []
    for name in choice.figures:
        values = [value for o in findings.outcomes if (value := o.means.get(name)) is not None]
        least, most = (shown(name, bound(values, default=None)) for bound in (min, max))
        rows.append((name, shown(name, best.get(name)), least, most))
    return [HtmlTable("Recommended and all points", ("figure", "recommended", "lowest", "highest"), rows)]


def failures(outcomes: Sequence[Outcome]) -> Facts:
    """Return the errors by point."""
    return {
        f"{outcome.point.number} ({outcome.point.label})": "; ".join(outcome.errors)
        for outcome in outcomes
        if outcome.errors
    }
