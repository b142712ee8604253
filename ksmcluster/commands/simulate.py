"""`ksmcluster simulate`: run a scenario, show what came of it, write it to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.options import (
    Address,
    Advice,
    ConfigOrSnapshot,
    Cost,
    Count,
    Engine,
    EngineName,
    MigrationActors,
    Nodes,
    NodesPerActor,
    NoMemoryCheck,
    PagesPerNode,
    Passes,
    Quiet,
    Seed,
    Settings,
    run_options,
)
from ksmcluster.commands.output import emit, save


def simulate(
    scenario: ConfigOrSnapshot = "default",
    nodes: Nodes = None,
    seed: Seed = None,
    passes: Passes = None,
    pages_per_node: PagesPerNode = None,
    count: Count = None,
    advice: Advice = None,
    cost: Cost = None,
    settings: Settings = None,
    engine: Engine = EngineName.RAY,
    address: Address = None,
    nodes_per_actor: NodesPerActor = 1,
    migration_actors: MigrationActors = 4,
    no_memory_check: NoMemoryCheck = False,
    output: Annotated[
        Path | None, typer.Option(help="Directory for summary.json, config.toml, provenance.json and tables.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json, not the report.")] = False,
    quiet: Quiet = False,
) -> None:
    """Simulate ksmd on a machine of many NUMA nodes, and report what it saved."""
    from rich.console import Console

    from ksmcluster.api import simulate as run
    from ksmcluster.config import Overrides, load
    from ksmcluster.report.progress import shown
    from ksmcluster.report.simulation_report import rendered
    from ksmcluster.results.directory import PASSES, check_directory

    options = run_options(engine, address, nodes_per_actor, migration_actors, no_memory_check)
    if output is not None:
        output = check_directory(output, PASSES)
    overrides = Overrides(
        nodes, seed, passes, pages_per_node, tuple(settings or ()), count=count, advice=advice, cost=cost
    )
    config = load(scenario, overrides)
    with shown(Console(stderr=True), quiet=quiet) as listener:
        result = run(config, options, progress=listener)
    if output is not None:
        save(result, output)
    emit(result.summary_json() if as_json else rendered(result, Console()))
