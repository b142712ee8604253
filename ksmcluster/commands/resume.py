"""`ksmcluster resume`: continue a run from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.options import (
    Address,
    AsJson,
    CheckpointEvery,
    ConnectTimeout,
    Engine,
    EngineName,
    MaxFailures,
    MigrationActors,
    NodesPerActor,
    NoMemoryCheck,
    Output,
    Quiet,
    StallTimeout,
    run_options,
)
from ksmcluster.commands.output import partly_shown, show


def resume(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory that was given to --checkpoint.")
    ],
    engine: Engine = EngineName.RAY,
    address: Address = None,
    connect_timeout: ConnectTimeout = 30.0,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    checkpoint_every: CheckpointEvery = "10m",
    max_failures: MaxFailures = 3,
    stall_timeout: StallTimeout = 60.0,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Continue a run from its last checkpoint. The result equals that of an uninterrupted run.

    The engine and the number of actors may differ from those of the first run.
    """
    from ksmcluster.api import resume as run
    from ksmcluster.api.checkpoints import checkpointed
    from ksmcluster.config import Scenario
    from ksmcluster.report.console import error_console
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
        stall_timeout,
    )
    scenario, steps = checkpointed(checkpoint)
    if output is not None:
        table = PASSES if isinstance(scenario, Scenario) else NODES
        output = check_directory(output, table, checkpoint)
    planned = plan(scenario, options, cores(), steps) if isinstance(scenario, Scenario) else ""
    step = "pass" if isinstance(scenario, Scenario) else "round"
    display = shown(error_console(), quiet=quiet, plan=planned, step=step)
    with partly_shown(output, as_json=as_json), display as listener:
        result = run(checkpoint, options, progress=listener)
    show(result, output, as_json=as_json)
