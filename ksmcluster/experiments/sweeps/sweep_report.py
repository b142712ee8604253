"""The text report of a sweep: a table of its points, the Pareto front, a recommended point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ksmcluster.experiments.figures import Figure, unit_of
from ksmcluster.experiments.sweeps.outcomes import Choice, Findings, Outcome
from ksmcluster.experiments.sweeps.pareto import NEAR
from ksmcluster.report import text

#: The most points in the table; with more points, it shows only the front.
MOST_POINTS = 100
ON_FRONT, RECOMMENDED = "*", "* best"
#: The most notes; runs.jsonl has all.
MOST_NOTES = 12
#: The most characters in a line of a heading.
_HEAD_WIDTH = 12


def report(found: Findings) -> RenderableType:
    """Return the table, the front and the recommended point."""
    parts: list[RenderableType] = [_heading(found), Text(), _table(found)]
    if len(found.outcomes) > 1:
        parts += [Text(), *map(Text, _conclusions(found))]
    if errors := _errors(found.outcomes):
        parts += [Text(), Text("Points that failed", style="bold red"), *errors]
    if said := notes(found.outcomes):
        lines = (Padding(Text(note, style="yellow"), (0, 0, 0, 2)) for note in said)
        parts += [Text(), Text("Notes", style="bold"), *lines]
    return Group(*parts)


def shown(name: str, value: Figure) -> str:
    """Return a figure with its unit."""
    if value is None:
        return "-"
    unit = unit_of(name)
    if unit == "bytes":
        return text.size(value)
    if unit == "s":
        return text.seconds(value)
    if unit == "percent":
        return f"{value:.2f} %"
    if name.endswith(("_fraction", "_fraction_mean")):
        return text.percent(value)
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    return f"{number} {unit}".rstrip()


def _heading(found: Findings) -> Text:
    facts = [text.counted(len(found.outcomes), "point")]
    facts += [f"{found.seeds} seeds each: means and standard deviations"] if found.seeds > 1 else []
    facts += [f"{text.counted(found.missing, 'run')} missing (--resume)"] if found.missing else []
    return Text(", ".join(facts), style="bold")


def _table(found: Findings) -> Table:
    keys, figures = found.keys, found.figures
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("  point", justify="right", no_wrap=True)
    for name in (*(key.rpartition(".")[2] for key in keys), *figures):
        table.add_column(_head(name), justify="right", overflow="fold")
    table.add_column("")
    for outcome in in_table(found):
        settings = (Text(outcome.point.settings.get(key, "")) for key in keys)
        cells = (cell(outcome, name) for name in figures)
        table.add_row(f"{outcome.point.number}", *settings, *cells, _mark(outcome, found.choice))
    return table


def _head(name: str) -> Text:
    """Break a name into lines."""
    return Text("\n".join(wrap(name.replace("_", " ").replace(".", ". "), _HEAD_WIDTH)))


def _mark(outcome: Outcome, choice: Choice) -> str:
    if outcome.errors:
        return f"{len(outcome.errors)} failed" if outcome.runs else "failed"
    if outcome.point.number == choice.recommended:
        return RECOMMENDED
    return ON_FRONT if outcome.point.number in choice.front else ""


def in_table(found: Findings) -> Sequence[Outcome]:
    """Return the points of the table: all, or only the front if there are too many."""
    if len(found.outcomes) <= MOST_POINTS:
        return found.outcomes
    return [outcome for outcome in found.outcomes if outcome.point.number in found.choice.front]


def cell(outcome: Outcome, name: str) -> str:
    """Return a figure of a point, with its standard deviation over seeds."""
    value, noise = shown(name, outcome.means.get(name)), shown(name, outcome.noise.get(name))
    return f"{value} ± {noise}" if noise.partition(" ")[0].strip("0.-") else value


def _conclusions(found: Findings) -> list[str]:
    choice = found.choice
    wanted = ", ".join(map(str, choice.differing))
    lines = [f"{ON_FRONT} Pareto front of {wanted}: {text.counted(len(choice.front), 'point')}"]
    lines += filter(None, (same_everywhere(choice), left_out(choice)))
    limits = " and ".join(map(str, choice.limits))
    within = f" within {limits}" if limits else ""
    if choice.recommended is None:
        return [*lines, f"No point is recommended{within}."]
    point = found.outcomes[choice.recommended - 1].point
    lines.append(f"Recommended{within}: point {point.number} ({point.label}). {why(choice)}")
    return lines


def same_everywhere(choice: Choice) -> str:
    """Say which objectives do not decide, as all points count as equal; empty if all decide."""
    same = [objective.name for objective in choice.objectives if objective not in choice.differing]
    where = "all points that are compared" if choice.left_out else "all points"
    return f"The same at {where}, within {100 * NEAR:g} %: {', '.join(same)}." if same else ""


def left_out(choice: Choice) -> str:
    """Say which finished points are not compared; empty if all are."""
    if not choice.left_out or not choice.objectives:
        return ""
    verb = "has" if len(choice.left_out) == 1 else "have"
    return f"Not compared: {_points(choice.left_out)}, which {verb} no {choice.objectives[0].name}."


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the notes on the runs, each with its points, unless all points have it."""
    points: dict[str, list[int]] = {}
    for outcome in outcomes:
        for note in outcome.notes:
            points.setdefault(note, []).append(outcome.point.number)
    finished = sum(outcome.runs > 0 for outcome in outcomes)
    found = [
        text.one_line(note if len(of) == finished else f"{_points(of)}: {note}")
        for note, of in points.items()
    ]
    more = [f"and {len(found) - MOST_NOTES:,} more notes: see runs.jsonl"] if len(found) > MOST_NOTES else []
    return found[:MOST_NOTES] + more


def _points(numbers: Sequence[int]) -> str:
    """Name points: `point 3`, `points 1 to 4, 7`."""
    # Numbers that follow each other are as far from their places in the list.
    rows = [[n for _, n in row] for _, row in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    parts = [f"{row[0]} to {row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows]
    return f"{'point' if len(numbers) == 1 else 'points'} {', '.join(parts)}"


def why(choice: Choice, point: str = "It") -> str:
    """Say why the recommended point is the best; the sentence begins with `point`."""
    first, *others = (objective.name for objective in choice.differing)
    best = f"{point} has the {'highest' if choice.differing[0].most else 'lowest'} {first}"
    if not others:
        return f"{best}."
    return f"{best}, or is within {100 * NEAR:g} % of it; among such points, {others[0]} decides."


def _errors(outcomes: Sequence[Outcome]) -> list[Text]:
    return [
        Text(f"  point {outcome.point.number} ({outcome.point.label}): {error}")
        for outcome in outcomes
        for error in outcome.errors
    ]
