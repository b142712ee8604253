"""`ksmcluster resume`: go on with a run from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksmcluster.commands.options import (
    Address,
    CheckpointEvery,
    ConnectTimeout,
    Engine,
    EngineName,
    MaxFailures,
    MigrationActors,
    NodesPerActor,
    NoMemoryCheck,
    Quiet,
    run_options,
)
from ksmcluster.commands.output import emit, save

if TYPE_CHECKING:
    from ksmcluster.results.compaction.compaction_result import CompactionResult
    from ksmcluster.results.result import Result


def resume(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a --checkpoint.")],
    engine: Engine = EngineName.RAY,
    address: Address = None,
    connect_timeout: ConnectTimeout = 30.0,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    checkpoint_every: CheckpointEvery = "10m",
    max_failures: MaxFailures = 3,
    output: Annotated[
        Path | None, typer.Option(help="Directory for summary.json, config.toml, provenance.json and tables.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json, not the report.")] = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run from its last checkpoint; the result is that of an undisturbed run.

    The engine and the number of actors may differ from those of the run before.
    """
    from rich.console import Console

    from ksmcluster.api import resume as run
    from ksmcluster.api.checkpoints import checkpointed
    from ksmcluster.config import Scenario
    from ksmcluster.report.progress import shown
    from ksmcluster.report.run_time import plan
    from ksmcluster.results.directory import NODES, PASSES, check_directory
    from ksmcluster.results.timing import cores

    options = run_options(
        engine,
        address,
        nodes_per_actor,
        migration_actors,
        no_memory_check,
        connect_timeout,
        checkpoint,
        checkpoint_every,
        max_failures,
    )
    scenario = checkpointed(checkpoint)
    if output is not None:
        output = check_directory(output, PASSES if isinstance(scenario, Scenario) else NODES)
    planned = plan(scenario, options, cores()) if isinstance(scenario, Scenario) else ""
    step = "pass" if isinstance(scenario, Scenario) else "round"
    with shown(Console(stderr=True), quiet=quiet, plan=planned, step=step) as told:
        result = run(checkpoint, options, progress=told)
    if output is not None:
        save(result, output)
    emit(result.summary_json() if as_json else _text(result))


def _text(result: Result | CompactionResult) -> str:
    """Return the report that the command of the run shows."""
    from rich.console import Console

    from ksmcluster.results.result import Result

    if isinstance(result, Result):
        from ksmcluster.report.simulation_report import rendered

        return rendered(result, Console())
    from ksmcluster.report.console import printed
    from ksmcluster.results.compaction.compaction_result import report

    return printed(report(result), Console())
