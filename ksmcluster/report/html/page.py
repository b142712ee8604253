"""The HTML report: one self-contained page."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ksmcluster.config import resolved_toml
from ksmcluster.experiments.comparison import flat_keys
from ksmcluster.report import text
from ksmcluster.report.html.describe import sections_of
from ksmcluster.report.html.figures import figures
from ksmcluster.report.html.sections import Facts, Sections, side_by_side
from ksmcluster.report.html.sweep_page import sweep_pictures, sweep_sections
from ksmcluster.report.html.templating import rendered
from ksmcluster.report.plots.files import require_matplotlib
from ksmcluster.report.run_data import RunData
from ksmcluster.report.saved_runs import SavedSweep
from ksmcluster.system.version import __version__

#: The largest relative difference of simulated times without a warning.
SAME_TIME = 0.02


def report(runs: Sequence[RunData], sweeps: Sequence[SavedSweep] = ()) -> str:
    """Return the HTML of the page. Raises UserError if matplotlib is not installed."""
    require_matplotlib("report")
    found = [sections_of(run) for run in runs]
    swept = [_swept(sweep, f"sweep{number}-") for number, sweep in enumerate(sweeps)]
    titles = [run.summary["title"] or run.label for run in runs] + [sweep["title"] for sweep in swept]
    all_limits = [*(of_run.limits for of_run in found), *(sweep["limits"] for sweep in swept)]
    return rendered(
        "report.html",
        title=" / ".join(dict.fromkeys(titles)),
        runs=[_described(run, of_run) for run, of_run in zip(runs, found, strict=True)],
        labels=[run.label for run in runs],
        sweeps=swept,
        questions=list(dict.fromkeys(of_run.question for of_run in found)),
        best=_best(runs),
        unequal_times=_unequal_times(runs),
        facts={name: side_by_side([getattr(of_run, name) for of_run in found]) for name in FACTS},
        differences=_differences(runs),
        figures=figures(runs),
        notes=_notes(runs),
        limits=list(dict.fromkeys(limit for limits in all_limits for limit in limits)),
        version=__version__,
    )


#: The parts of `Sections` that are facts.
FACTS = ("asked", "found", "time", "cost")


def _described(run: RunData, of_run: Sections) -> dict[str, Any]:
    """Return what the template shows about one run."""
    return {
        "label": run.label,
        "answer": of_run.answer,
        "tables": of_run.tables,
        "toml": resolved_toml(run.config),
        "command": run.provenance["command"],
        "origin": _origin(run),
    }


def _swept(sweep: SavedSweep, prefix: str) -> dict[str, Any]:
    """Return what the template shows about a sweep; ids in its pictures begin with the prefix."""
    origin: Facts = {}
    if sweep.provenance:
        jobs, wall = (sweep.provenance["timing"][name] for name in ("jobs", "wall_seconds"))
        side_by_side = f", {text.counted(jobs, 'point')} in parallel" if jobs else ""
        took = ("killed" if wall is None else text.seconds(wall)) + side_by_side
        origin = _host(sweep.provenance) | {"last command": took}
    return {
        **sweep_sections(sweep.result)._asdict(),
        "label": sweep.label,
        "pictures": sweep_pictures(sweep.result, prefix),
        "command": sweep.provenance.get("command", ""),
        "origin": origin,
    }


def _origin(run: RunData) -> Facts:
    """Return the host of the run, and the versions of the software."""
    timing = run.provenance["timing"]
    wall, start = text.seconds(timing["wall_seconds"]), text.seconds(timing["start_seconds"])
    return _host(run.provenance) | {
        "run": f"engine {timing['engine']}, {wall}, including {start} to start",
        "configuration": run.summary["config_digest"],
    }


def _host(provenance: Mapping[str, Any]) -> dict[str, str]:
    host = provenance["host"]
    return {
        "versions": ", ".join(f"{name} {number}" for name, number in provenance["versions"].items()),
        "host": f"{host['system']} {host['release']}, {host['machine']}, {text.counted(host['cpus'], 'CPU')}",
    }


def _best(runs: Sequence[RunData]) -> str:
    """Say which of several runs of one command has the best result; empty if none is better."""
    if len(runs) < 2 or len({run.command for run in runs}) > 1:
        return ""
    simulations = runs[0].command == "simulate"
    gains = [
        run.summary["derived"]["saved_bytes_mean"] if simulations else run.summary["obtained"]["movable_on"]
        for run in runs
    ]
    best = gains.index(max(gains))
    if gains.count(max(gains)) > 1:
        return ""
    words = [text.size(gain) if simulations else f"{gain:,} blocks" for gain in gains]
    others = ", ".join(f"{words[n]} ({run.label})" for n, run in enumerate(runs) if n != best)
    with_drivers = any("movable_off" in run.summary.get("obtained", ()) for run in runs)
    blocks = "gives the most blocks" + (" with movable driver pages" if with_drivers else "")
    what = "saves the most memory" if simulations else blocks
    return f"{runs[best].label} {what}: {words[best]}, compared with {others}."


def _notes(runs: Sequence[RunData]) -> list[str]:
    """Return the notes of the results."""
    several = len(runs) > 1
    return [
        f"{run.label}: {note}" if several else note for run in runs for note in run.summary.get("notes", ())
    ]


def _unequal_times(runs: Sequence[RunData]) -> str:
    """Return a warning if the simulations end at different times."""
    ends = {
        run.label: run.summary["derived"]["simulated_seconds"] for run in runs if run.command == "simulate"
    }
    if not ends or max(ends.values()) <= (1 + SAME_TIME) * min(ends.values()):
        return ""
    each = ", ".join(f"{label} after {text.seconds(end)}" for label, end in ends.items())
    return f"The runs end at different simulated times, which may explain differences: {each}."


def _differences(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """Return a row for each key that differs between configurations."""
    keys = [flat_keys(tomllib.loads(resolved_toml(run.config))) for run in runs]
    rows = side_by_side([{name: f"{value}" for name, value in of_run.items()} for of_run in keys])
    return [row for row in rows if len(set(row[1])) > 1]
