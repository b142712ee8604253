"""`ksmcluster sweep`: run a scenario with many parameter values and report the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksmcluster.commands.options import (
    Address,
    Advice,
    AnyConfig,
    ConnectTimeout,
    Cost,
    Count,
    EngineName,
    Limits,
    MigrationActors,
    Nodes,
    NodesPerActor,
    NoMemoryCheck,
    Objectives,
    PagesPerNode,
    Passes,
    Quiet,
    Seconds,
    Seed,
    Settings,
    StallTimeout,
    Unset,
    Until,
    run_options,
)
from ksmcluster.commands.output import emit
from ksmcluster.system.errors import UserError
from ksmcluster.system.signals import set_note

if TYPE_CHECKING:
    from ksmcluster.experiments.sweeps.axes import SweepPoint
    from ksmcluster.experiments.sweeps.run_one import RunDone, RunRecord
    from ksmcluster.experiments.sweeps.stored import Preference


def sweep(
    scenario: AnyConfig = "default",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Values of a key, or of nodes, passes, engine, ...; also ranges: 1..16x2, 1..16+5. If "
            "repeated, all combinations run.",
        ),
    ] = None,
    zipped: Annotated[
        bool,
        typer.Option(
            "--zip", help="Pair the values instead: the first of each key, the second of each, and so on."
        ),
    ] = False,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV file instead of --vary: a line of keys, then a line per point."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per point, each with its own seed.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Points that run in parallel. [default: 1; on Ray, as many as cores and memory allow]",
        ),
    ] = None,
    passes_rows: Annotated[
        bool, typer.Option("--passes-rows", help="Also write a row per pass, with the figures of the pass.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Directory that stores each finished run, and sweep.parquet."),
    ] = ...,  # type: ignore[assignment]
    resume: Annotated[
        bool, typer.Option("--resume", help="Run what is missing or failed in the directory.")
    ] = False,
    objectives: Objectives = None,
    limits: Limits = None,
    nodes: Nodes = None,
    seed: Seed = None,
    passes: Passes = None,
    seconds: Seconds = None,
    until: Until = None,
    pages_per_node: PagesPerNode = None,
    count: Count = None,
    advice: Advice = None,
    settings: Settings = None,
    unset: Unset = None,
    cost: Cost = None,
    engine: Annotated[
        EngineName, typer.Option(help="Everything in this process, or Ray actors. Ray starts once.")
    ] = EngineName.INLINE,
    address: Address = None,
    connect_timeout: ConnectTimeout = 30.0,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    stall_timeout: StallTimeout = 60.0,
    quiet: Quiet = False,
) -> None:
    """Run a scenario with many parameter values and report the best.

    A point that fails becomes a row with its error, and the exit code is 1.
    """
    from rich.console import Console

    from ksmcluster.config import Overrides
    from ksmcluster.experiments.sweeps.plan import make_plan
    from ksmcluster.experiments.sweeps.stored import Preference
    from ksmcluster.experiments.sweeps.sweep import carry_out
    from ksmcluster.experiments.sweeps.sweep_progress import shown
    from ksmcluster.experiments.sweeps.sweep_report import report
    from ksmcluster.report.console import error_console, printed

    options = run_options(
        engine,
        address,
        nodes_per_actor,
        migration_actors,
        no_memory_check,
        connect_timeout,
        stall_timeout=stall_timeout,
    )
    base = Overrides(
        nodes,
        seed,
        passes,
        pages_per_node,
        tuple(settings or ()),
        count=count,
        advice=advice,
        cost=cost,
        seconds=seconds,
        until=until,
        unset=tuple(unset or ()),
    )
    made = _points(vary or [], zipped, points)
    wanted = Preference(objectives, tuple(limits or ()))
    check = _check_wanted(wanted)
    plan = make_plan(scenario, made, base, options, seeds=seeds, passes_rows=passes_rows)

    def told(done: RunDone) -> None:
        check(done.record)
        listener(done)

    set_note(lambda: f"the runs finished so far are in {output}: continue with --resume")
    with shown(error_console(), quiet=quiet) as listener:
        result = carry_out(plan, output, jobs, resume, told, wanted)
    emit(printed(report(result.findings()), Console()))
    if result.failed:
        typer.echo(f"error: {len(result.failed)} of {len(result.records)} runs failed", err=True)
        raise typer.Exit(1)


def _points(vary: list[str], zipped: bool, points: Path | None) -> tuple[SweepPoint, ...]:
    from ksmcluster.experiments.sweeps.axes import make_points, parse_axes, read_points

    if points is None:
        return make_points(parse_axes(vary), zipped=zipped)
    if vary or zipped:
        raise UserError("--points: the file defines all points; leave out --vary and --zip")
    return read_points(points)


def _check_wanted(wanted: Preference) -> Callable[[RunRecord], None]:
    """Return a function that checks a record: it raises UserError for figures that the run does not have.

    Raises UserError at once if an objective or a limit cannot be parsed.
    """
    from ksmcluster.experiments.sweeps.pareto import named, parse_limits, parse_objectives

    limits = parse_limits(wanted.limits)
    objectives = parse_objectives(wanted.objectives) if wanted.objectives is not None else ()

    def check(record: RunRecord) -> None:
        if record.figures:
            named(objectives, limits, list(record.figures))

    return check
