"""What a report says of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ksmcluster.experiments.knobs import shell_lines
from ksmcluster.experiments.sweeps.outcomes import Choice, Findings, Outcome, differs
from ksmcluster.experiments.sweeps.pareto import NEAR
from ksmcluster.experiments.sweeps.sweep_report import MOST_POINTS, cell, in_table, shown
from ksmcluster.experiments.sweeps.sweep_result import SweepResult
from ksmcluster.report import text
from ksmcluster.report.html import compacted, simulated
from ksmcluster.report.html.figures import inline
from ksmcluster.report.html.sections import Facts, HtmlTable
from ksmcluster.report.plots.style import MOST_BARS

#: Values of a key that are named one by one.
MOST_VALUES = 12


class SweepSections(NamedTuple):
    """What a report says of a sweep, but for its pictures."""

    title: str
    question: str
    asked: Facts
    #: One sentence.
    answer: str
    #: The points, and the figures over all of them.
    tables: Sequence[HtmlTable]
    #: Errors by point.
    failed: Facts
    #: Shell lines for a real machine; none without a recommended point that has a ksmd.
    knobs: Sequence[str]
    #: The point whose configuration is shown, and its text.
    shown_point: int
    toml: str
    limits: Sequence[str]


def sweep_sections(found: SweepResult) -> SweepSections:
    """Return what a report says of this sweep."""
    findings = found.findings()
    simulations = found.plan["command"] == "simulate"
    number = findings.choice.recommended or next(
        (outcome.point.number for outcome in found.outcomes if outcome.runs), 1
    )
    return SweepSections(
        _title(found),
        _question(findings),
        _asked(found, findings),
        answer(findings),
        [_points(findings), *_figures(findings)],
        _failed(found.outcomes),
        _knobs(found, findings.choice.recommended),
        number,
        found.plan["points"][number - 1]["config"],
        simulated.LIMITS if simulations else compacted.LIMITS,
    )


def sweep_pictures(found: SweepResult, prefix: str) -> list[Markup]:
    """Return the Pareto front, and how figures depend on each key; names in them begin with the prefix."""
    findings = found.findings()
    done = [outcome.point for outcome in found.outcomes if outcome.runs]
    if not done:
        return []
    differing = [o.name for o in findings.choice.objectives if differs(o.name, found.outcomes)]
    drawn = [] if found.plan["command"] == "simulate" or len(done) > MOST_BARS else [found.plot("obtained")]
    drawn += [found.plot("pareto")] if len(differing) > 1 else []
    for key in findings.keys:
        if len({point.settings[key] for point in done}) > 1:
            names = differing[:2] or findings.choice.figures[:1]
            drawn += [found.plot("sensitivity", key=key, figure=name) for name in names]
    return [inline(picture, f"{prefix}{number}-") for number, picture in enumerate(drawn)]


def answer(findings: Findings) -> str:
    """Say which point is best, in one sentence."""
    choice = findings.choice
    limits = " and ".join(map(str, choice.limits))
    within = f" within {limits}" if limits else ""
    if choice.recommended is None:
        return f"There is no point to recommend{within}."
    best = findings.outcomes[choice.recommended - 1]
    figures = ", ".join(f"{name} {cell(best, name)}" for name in choice.figures)
    return f"Point {best.point.number} ({best.point.label}) is recommended{within}: {figures}."


def _title(found: SweepResult) -> str:
    """Return the title of the scenario."""
    configs = (found.config(point.number) for point in found.points)
    titles = (config["simulation"].get("title", "") for config in configs if config)
    return next(filter(None, titles), "A sweep")


def _question(findings: Findings) -> str:
    keys = " and ".join(findings.keys) or "the scenario"
    wanted = ", ".join(
        f"{'much' if objective.most else 'little'} {objective.name}"
        for objective in findings.choice.objectives
    )
    return f"Which values of {keys} are best? Wanted is, most important first: {wanted}."


def _asked(found: SweepResult, findings: Findings) -> Facts:
    varied = {key: _values([point.settings[key] for point in found.points]) for key in findings.keys}
    return {
        **varied,
        "points": f"{len(found.points):,}",
        "runs of each": text.counted(findings.seeds, "seed"),
        "limits": ", ".join(map(str, findings.choice.limits)) or "none",
        "runs that failed": f"{len(found.failed):,}",
        "runs still to be done": f"{found.missing:,}",
    }


def _values(texts: Sequence[str]) -> str:
    values = list(dict.fromkeys(texts))
    if len(values) > MOST_VALUES:
        return f"{', '.join(values[: MOST_VALUES - 1])}, ... {values[-1]} ({len(values):,} values)"
    return ", ".join(values)


def _points(findings: Findings) -> HtmlTable:
    keys, figures = findings.keys, findings.choice.figures
    rows = [
        (
            f"{outcome.point.number}",
            *(outcome.point.settings.get(key, "") for key in keys),
            *(cell(outcome, name) for name in figures),
            _mark(outcome, findings.choice),
        )
        for outcome in in_table(findings)
    ]
    note = f"The Pareto front of {text.counted(len(findings.outcomes), 'point')}; sweep.parquet has all."
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
    wanted = ", ".join(map(str, choice.objectives))
    return (
        f"A point is on the Pareto front if no other one is better in one of {wanted} and worse in none. "
        f"Points within {100 * NEAR:g} % of the best in one objective are told apart by the next."
    )


def _mark(outcome: Outcome, choice: Choice) -> str:
    if outcome.errors:
        return "failed"
    if outcome.point.number == choice.recommended:
        return "recommended"
    return "on front" if outcome.point.number in choice.front else ""


def _figures(findings: Findings) -> list[HtmlTable]:
    """The figures of the recommended point, and between which all points are."""
    choice = findings.choice
    if choice.recommended is None:
        return []
    best = findings.outcomes[choice.recommended - 1].means
    rows = []
    for name in choice.figures:
        values = [value for o in findings.outcomes if (value := o.means.get(name)) is not None]
        least, most = (shown(name, bound(values, default=None)) for bound in (min, max))
        rows.append((name, shown(name, best.get(name)), least, most))
    return [HtmlTable("Point to recommend, and all points", ("figure", "recommended", "least", "most"), rows)]


def _failed(outcomes: Sequence[Outcome]) -> Facts:
    return {
        f"{outcome.point.number} ({outcome.point.label})": "; ".join(outcome.errors)
        for outcome in outcomes
        if outcome.errors
    }


def _knobs(found: SweepResult, recommended: int | None) -> list[str]:
    ksm = found.config(recommended).get("ksm") if recommended is not None else None
    return shell_lines(ksm) if ksm is not None else []
