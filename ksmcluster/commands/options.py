"""Options that several sub-commands share: which scenario, and what to change in it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from actors.run_options import RunOptions


class EngineName(StrEnum):
    """What runs the simulation."""

    RAY = "ray"
    INLINE = "inline"


def _simulations(incomplete: str) -> list[str]:
    """Return the scenarios of `simulate` that a shell may complete a word to."""
    from ksmcluster.config import bundled

    return [name for name in bundled() if name.startswith(incomplete)]


def _compactions(incomplete: str) -> list[str]:
    from ksmcluster.config import bundled_compactions

    return [name for name in bundled_compactions() if name.startswith(incomplete)]


def _scenarios(incomplete: str) -> list[str]:
    return _simulations(incomplete) + _compactions(incomplete)


_SNAPSHOT = "Name of a scenario that comes along, a TOML file or a snapshot."
Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="Name of a scenario that comes along, or a TOML file.",
        autocompletion=_compactions,
    ),
]
ConfigOrSnapshot = Annotated[
    str, typer.Argument(metavar="CONFIG", help=_SNAPSHOT, autocompletion=_simulations)
]
#: Of `simulate` or of `compact`.
AnyConfig = Annotated[str, typer.Argument(metavar="CONFIG", help=_SNAPSHOT, autocompletion=_scenarios)]
Count = Annotated[int | None, typer.Option(min=1, help="Of a snapshot: processes in all.")]
Advice = Annotated[
    str | None,
    typer.Option(
        metavar="as-captured|all",
        help="Of a snapshot: which memory ksmd scans.",
    ),
]
Nodes = Annotated[int | None, typer.Option(help="NUMA nodes.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Passes = Annotated[int | None, typer.Option(help="Full passes of ksmd.")]
Seconds = Annotated[
    float | None,
    typer.Option(help="Simulated time at which the run ends, with the pass under way; not with --passes."),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="converged", help="The run ends once its figures stand still; not with --passes."),
]
PagesPerNode = Annotated[
    int | None, typer.Option(help="Scale the memory of the processes to about so many pages a node.")
]
Cost = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Take [cost] from a TOML file, such as `ksmcluster calibrate` writes."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key, as in process[0].per_node=2; may be repeated."),
]
Unset = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Any key that the scenario sets: its default again; may be repeated."),
]
Engine = Annotated[
    EngineName, typer.Option(help="Ray actors, or all in this process; the result is the same.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join; by default that of the Ray job, or one that ends with the run."),
]
ConnectTimeout = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Time that the Ray cluster has to answer.")
]
NodesPerActor = Annotated[int, typer.Option(min=1, help="NUMA nodes that share an actor.")]
MigrationActors = Annotated[
    int, typer.Option(min=1, help="Actors that drive the compactors; the result is the same.")
]
NoMemoryCheck = Annotated[
    bool, typer.Option("--no-memory-check", help="Run even if the memory of this host cannot suffice.")
]
CheckpointDirectory = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write checkpoints there. The same command goes on from the last one, and so does "
        "`ksmcluster resume DIR`.",
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        metavar="TIME|PASSES",
        help="Time between checkpoints (10m, 90s, 2h), or passes (5p); in `compact`, rounds.",
    ),
]
MaxFailures = Annotated[int, typer.Option(min=0, help="Deaths of actors or machines that the run survives.")]
StallTimeout = Annotated[
    float,
    typer.Option(
        min=10.0,
        metavar="SECONDS",
        help="Time after which a process of Ray that does nothing at all is taken for dead.",
    ),
]
Objectives = Annotated[
    str | None,
    typer.Option(
        metavar="FIGURE:max|min,...",
        help="What makes a point of a sweep good, most important first; by default, much saved, in little "
        "simulated time, with little of a CPU for ksmd and few remote mappings.",
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="FIGURE<=NUMBER", help="Recommend only points within it; may be repeated."
    ),
]
Output = Annotated[
    Path | None, typer.Option(help="Directory for summary.json, config.toml, provenance.json and tables.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print summary.json, not the report.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress display.")]


def run_options(
    engine: EngineName,
    address: str | None,
    nodes_per_actor: int,
    migration_actors: int,
    no_memory_check: bool,
    connect_timeout: float,
    checkpoint: Path | None = None,
    checkpoint_every: str = "10m",
    max_failures: int = 3,
    stall_timeout: float = 60.0,
) -> RunOptions:
    """Return what these options say. Raises UserError for an address that no engine would use."""
    from actors.run_options import RunOptions

    if address is not None and engine is not EngineName.RAY:
        raise UserError("--address: the inline engine joins no Ray cluster; leave one of the two out")
    memory_check = not no_memory_check
    return RunOptions(
        engine.value,
        address,
        nodes_per_actor,
        migration_actors,
        memory_check,
        connect_timeout,
        None if checkpoint is None else str(checkpoint),
        checkpoint_every,
        max_failures,
        stall_timeout,
    )
