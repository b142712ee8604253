"""Options that several sub-commands share: which scenario, and what to change in it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class EngineOption(StrEnum):
    """What runs the simulation."""

    RAY = "ray"
    INLINE = "inline"


Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="Name of a scenario that comes along, or a TOML file.")
]
Nodes = Annotated[int | None, typer.Option(help="NUMA nodes.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Passes = Annotated[int | None, typer.Option(help="Full passes of ksmd.")]
PagesPerNode = Annotated[
    int | None, typer.Option(help="Scale the memory of the processes to about so many pages a node.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key, as in process[0].per_node=2; may be repeated."),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to join; by default Ray is started for this run.")
]
NodesPerActor = Annotated[int, typer.Option(min=1, help="NUMA nodes that share an actor.")]
MigrationActors = Annotated[
    int, typer.Option(min=1, help="Actors that drive the compactors; the result is the same.")
]
NoMemoryCheck = Annotated[
    bool, typer.Option("--no-memory-check", help="Run even if the memory of this host cannot suffice.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress display.")]
