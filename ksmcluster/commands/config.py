"""`ksmcluster config`: show scenarios without running them."""

from __future__ import annotations

from typing import Annotated

import typer

from ksmcluster.commands.options import (
    Advice,
    AnyConfig,
    Count,
    Nodes,
    PagesPerNode,
    Passes,
    Seconds,
    Seed,
    Settings,
    Unset,
    Until,
)
from ksmcluster.commands.output import emit

config = typer.Typer(
    help="Show scenarios without running them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@config.command()
def show(
    scenario: AnyConfig = "default",
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
    plugins: Annotated[
        bool, typer.Option("--plugins", help="Import and try the plug-in classes that it names.")
    ] = False,
) -> None:
    """Print a scenario as TOML, with all defaults and changes.

    SCENARIO is a scenario of `simulate` or `compact`, or a snapshot.
    """
    from ksmcluster.config import Overrides, load_either, resolved_toml

    changes = Overrides(
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
    )
    found = load_either(scenario, changes)
    if plugins:
        from ksmcluster.api.plugins import try_plugins

        try_plugins(found)
    notes = "".join(f"# {note}\n" for note in found.notes)
    emit(notes + resolved_toml(found))


@config.command("list")
def list_scenarios() -> None:
    """Print the bundled scenarios and the command that runs each."""
    from ksmcluster.config import bundled, bundled_compactions, load, load_compaction

    for name in bundled():
        emit(f"{name:16}  simulate  {load(name).simulation.title}\n")
    for name in bundled_compactions():
        emit(f"{name:16}  compact   {load_compaction(name).simulation.title}\n")
