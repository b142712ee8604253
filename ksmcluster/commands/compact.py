"""`ksmcluster compact`: compact memory full of driver pages, movable and unmovable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.options import (
    Address,
    AsJson,
    CheckpointDirectory,
    CheckpointEvery,
    ConfigOrMachine,
    ConnectTimeout,
    Engine,
    EngineName,
    MaxFailures,
    MigrationActors,
    Nodes,
    NodesPerActor,
    NoMemoryCheck,
    Output,
    Quiet,
    Seed,
    StallTimeout,
    Unset,
    run_options,
)
from ksmcluster.commands.output import show
from ksmcluster.report.text import counted
from ksmcluster.system.errors import UserError


def compact(
    scenario: ConfigOrMachine = None,
    nodes: Nodes = None,
    seed: Seed = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key, as in migration.order=4; may be repeated."),
    ] = None,
    unset: Unset = None,
    engine: Engine = EngineName.RAY,
    address: Address = None,
    connect_timeout: ConnectTimeout = 30.0,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    drain: Annotated[
        list[int] | None,
        typer.Option(metavar="NODE", help="Node to drain before the compaction; may be repeated."),
    ] = None,
    buddyinfo: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Begin with the free blocks of this copy of /proc/buddyinfo. Give the memory of a node, "
            "too: --set machine.memory_per_node=SIZE.",
        ),
    ] = None,
    pagetypeinfo: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A copy of /proc/pagetypeinfo of the same machine, which says what is movable, and how "
            "much memory there is.",
        ),
    ] = None,
    from_host: Annotated[
        bool,
        typer.Option(
            "--from-host",
            help="Begin with the free blocks of this machine. As root, its pageblocks are known, too.",
        ),
    ] = False,
    checkpoint: CheckpointDirectory = None,
    checkpoint_every: CheckpointEvery = "10m",
    max_failures: MaxFailures = 3,
    stall_timeout: StallTimeout = 60.0,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compact memory full of driver pages, and report the large free blocks gained and their cost."""
    from ksmcluster.api import compact as run
    from ksmcluster.config import DEFAULT_COMPACTION, FULL_MACHINE, Overrides, load_compaction
    from ksmcluster.report.console import error_console
    from ksmcluster.report.progress import shown
    from ksmcluster.results.directory import NODES, check_directory
    from ksmcluster.system.start_state import host_notes, start_keys

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
    if output is not None:
        output = check_directory(output, NODES, checkpoint)
    overrides = Overrides(
        nodes, seed, settings=tuple(settings or ()), drain=tuple(drain or ()), unset=tuple(unset or ())
    )
    start = start_keys(buddyinfo, pagetypeinfo, from_host=from_host)
    if start and nodes not in (None, start["nodes"]):
        raise UserError(f"--nodes: the files' machine has {counted(start['nodes'], 'node')}; leave it out")
    config = load_compaction(scenario or (FULL_MACHINE if start else DEFAULT_COMPACTION), overrides, start)
    if from_host:
        config = config.with_notes([*config.notes, *host_notes()])
    with shown(error_console(), quiet=quiet, step="round") as listener:
        result = run(config, options, progress=listener)
    show(result, output, as_json=as_json)
