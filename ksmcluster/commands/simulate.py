"""`ksmcluster simulate`: run a scenario, show its result, write it to files."""

from __future__ import annotations

from ksmcluster.commands.options import (
    Address,
    Advice,
    AsJson,
    CheckpointDirectory,
    CheckpointEvery,
    ConfigOrSnapshot,
    ConnectTimeout,
    Cost,
    Count,
    Engine,
    EngineName,
    MaxFailures,
    MigrationActors,
    Nodes,
    NodesPerActor,
    NoMemoryCheck,
    Output,
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
from ksmcluster.commands.output import partly_shown, show


def simulate(
    scenario: ConfigOrSnapshot = "default",
    nodes: Nodes = None,
    seed: Seed = None,
    passes: Passes = None,
    seconds: Seconds = None,
    until: Until = None,
    pages_per_node: PagesPerNode = None,
    count: Count = None,
    advice: Advice = None,
    cost: Cost = None,
    settings: Settings = None,
    unset: Unset = None,
    engine: Engine = EngineName.RAY,
    address: Address = None,
    connect_timeout: ConnectTimeout = 30.0,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    checkpoint: CheckpointDirectory = None,
    checkpoint_every: CheckpointEvery = "10m",
    max_failures: MaxFailures = 3,
    stall_timeout: StallTimeout = 60.0,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Simulate ksmd on a machine with many NUMA nodes, and report what it saves."""
    from ksmcluster.api import simulate as run
    from ksmcluster.config import Overrides, load
    from ksmcluster.report.console import error_console
    from ksmcluster.report.progress import shown
    from ksmcluster.report.run_time import plan
    from ksmcluster.results.directory import PASSES, check_directory
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
    if output is not None:
        output = check_directory(output, PASSES, checkpoint)
    overrides = Overrides(
        nodes,
        seed,
        passes,
        pages_per_node,
        tuple(settings or ()),
        count=count,
        advice=advice,
        seconds=seconds,
        until=until,
        unset=tuple(unset or ()),
        cost=cost,
    )
    config = load(scenario, overrides)
    display = shown(error_console(), quiet=quiet, plan=plan(config, options, cores()))
    with partly_shown(output, as_json=as_json), display as listener:
        result = run(config, options, progress=listener)
    show(result, output, as_json=as_json)
