"""`ksmcluster validate`: compare the simulator with the KSM of this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ksmcluster.config import load_cost
from ksmcluster.system.errors import UserError
from ksmcluster.validate.comparison import Comparison, Step, Value
from ksmcluster.validate.replay import ENGINES
from ksmcluster.validate.session import validate as run_both
from ksmcluster.validate.timing import TimeComparison

_NO_WIDTH = 10_000  # columns: tables keep their width in narrow terminals
_PREFIXES = ("pages_", "stable_node_", "ksm_")


def validate(
    script: Annotated[
        Path | None, typer.Argument(metavar="SCRIPT", help="Script to run. [default: a built-in one]")
    ] = None,
    engine: Annotated[str, typer.Option(help=f"Engine to simulate on: {', '.join(ENGINES)}.")] = "exact",
    time: Annotated[
        bool,
        typer.Option("--time", help="Also compare the times of passes; ksmd sleeps as it does by default."),
    ] = False,
    cost: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --time: costs written by `ksmcluster calibrate`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a script on the simulator and on this host's KSM, and compare all counters after each step.

    Needs root, and a host on which nothing else uses KSM. All KSM settings are restored at the end.

    The exit code is 1 if anything differs.
    """
    if engine not in ENGINES:
        raise UserError(f"--engine {engine}: no such engine; choose {' or '.join(ENGINES)}")
    if cost and not time:
        raise UserError("--cost needs --time; add --time")
    comparison = run_both(script, engine, cost=load_cost(cost) if time else None)
    if as_json:
        typer.echo(json.dumps(comparison.as_json()))
    else:
        _print(comparison)
    if comparison.differing():
        raise typer.Exit(1)


def _print(comparison: Comparison) -> None:
    console = Console(width=_NO_WIDTH)
    title = f"simulated: kernel {comparison.kernel}, engine {comparison.engine}; real: {comparison.release}"
    console.print(Text(title, style="bold"))
    calls, *records = comparison.steps
    if records:
        console.print(_table(records))
    for step in (calls, *records):
        for name in step.differences():
            simulated, real = step.simulated[name], step.real[name]
            console.print(Text(f"{step.label} {name}: simulated {simulated}, real {real}", style="red"))
    if comparison.times:
        console.print(_times(comparison.times))
    console.print(f"steps: {len(records)}, values compared: {comparison.compared()}, {_verdict(comparison)}")


def _times(times: list[TimeComparison]) -> Table:
    """Return a table of CPU and wall time in ms per pass and in total, and of the ratio predicted / real."""
    table = Table("pass", box=None, pad_edge=False)
    for head in ("pages", "CPU ms", "real", "ratio", "wall ms", "real", "ratio"):
        table.add_column(head, justify="right")
    for number, time in enumerate(times, 1):
        table.add_row(str(number), *_time_cells([time]))
    table.add_row("all", *_time_cells(times))
    return table


def _time_cells(times: list[TimeComparison]) -> list[str]:
    cells = [f"{sum(time.real.pages for time in times):,}"]
    for name in ("cpu_seconds", "seconds"):
        predicted = sum(getattr(time.predicted, name) for time in times) * 1e3
        real = sum(getattr(time.real, name) for time in times) * 1e3
        cells += [f"{predicted:,.2f}", f"{real:,.2f}", f"{predicted / real:.2f}"]
    return cells


def _verdict(comparison: Comparison) -> str:
    differing = comparison.differing()
    return f"{differing} of them differ" if differing else "all equal"


def _table(records: list[Step]) -> Table:
    """Return the counters of the whole machine, simulated above real, without those that are always 0."""
    names = [name for name in records[0].simulated if any(_moved(name, record) for record in records)]
    table = Table("step", "", box=None, pad_edge=False)
    for name in names:
        table.add_column(_short(name), justify="right")
    for record in records:
        differing = set(record.differences())
        for label, side, values in (
            (record.label, "simulated", record.simulated),
            ("", "real", record.real),
        ):
            table.add_row(Text(label), side, *(_cell(values[name], name in differing) for name in names))
    return table


def _moved(name: str, record: Step) -> bool:
    return "." not in name and (record.simulated[name], record.real[name]) != (0, 0)


def _short(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _cell(value: Value, differs: bool) -> Text:
    return Text(f"{value} !", style="red") if differs else Text(str(value))
