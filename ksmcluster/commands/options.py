"""Options that several sub-commands share: the scenario, changes of it, and how to run it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from actors.run_options import RunOptions


class EngineName(StrEnum):
    """The engine that runs the simulation."""

    RAY = "ray"
    INLINE = "inline"


def _simulations(incomplete: str) -> list[str]:
    """Return the scenarios of `simulate` for shell completion."""
    from ksmcluster.config import bundled

    return [name for name in bundled() if name.startswith(incomplete)]


def _compactions(incomplete: str) -> list[str]:
    from ksmcluster.config import bundled_compactions

    return [name for name in bundled_compactions() if name.startswith(incomplete)]


def _scenarios(incomplete: str) -> list[str]:
    return _simulations(incomplete) + _compactions(incomplete)


_SCENARIO = "Name of a bundled scenario, or a TOML file."
_SNAPSHOT = "Name of a bundled scenario, a TOML file or a snapshot."
Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help=_SCENARIO,
        autocompletion=_compactions,
    ),
]
ConfigOrMachine = Annotated[
    str | None,
    typer.Argument(
        metavar="CONFIG",
        help=_SCENARIO,
        show_default="compaction-zram; with free blocks of a machine, no drivers",
        autocompletion=_compactions,
    ),
]
ConfigOrSnapshot = Annotated[
    str, typer.Argument(metavar="CONFIG", help=_SNAPSHOT, autocompletion=_simulations)
]
#: Of `simulate` or of `compact`.
AnyConfig = Annotated[str, typer.Argument(metavar="CONFIG", help=_SNAPSHOT, autocompletion=_scenarios)]
Count = Annotated[int | None, typer.Option(min=1, help="For a snapshot: number of processes.")]
Advice = Annotated[
    str | None,
    typer.Option(
        metavar="as-captured|all",
        help="For a snapshot: the memory that ksmd scans.",
    ),
]
Nodes = Annotated[int | None, typer.Option(help="NUMA nodes.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers.")]
Passes = Annotated[int | None, typer.Option(help="Full passes of ksmd.")]
Seconds = Annotated[
    float | None,
    typer.Option(
        help="Simulated time after which the run ends, once the pass is complete; not with --passes."
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="converged", help="End the run once its figures stop changing; not with --passes."),
]
PagesPerNode = Annotated[
    int | None, typer.Option(help="Scale the processes' memory to about this many pages per node.")
]
Cost = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Read [cost] from a TOML file, such as one written by `ksmcluster calibrate`."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any key, as in process[0].per_node=2; may be repeated."
    ),
]
Unset = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Reset a key of the scenario to its default; may be repeated."),
]
Engine = Annotated[
    EngineName, typer.Option(help="Ray actors, or everything in this process; the result is the same.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join. Default: the Ray job's, or a new one that ends with the run."),
]
ConnectTimeout = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Time limit for the Ray cluster to answer.")
]
NodesPerActor = Annotated[int, typer.Option(min=1, help="NUMA nodes that share an actor.")]
MigrationActors = Annotated[
    int, typer.Option(min=1, help="Actors that run the compactors; the result is the same.")
]
NoMemoryCheck = Annotated[
    bool, typer.Option("--no-memory-check", help="Run even if this host has too little memory.")
]
CheckpointDirectory = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write checkpoints to DIR. The same command continues from the last one, and so does "
        "`ksmcluster resume DIR`.",
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        metavar="TIME|PASSES",
        help="Interval of checkpoints: a time (10m, 90s, 2h) or passes (5p); in `compact`, rounds.",
    ),
]
MaxFailures = Annotated[
    int, typer.Option(min=0, help="How many actors or machines may die before the run fails.")
]
StallTimeout = Annotated[
    float,
    typer.Option(
        min=10.0,
        metavar="SECONDS",
        help="A Ray process that does nothing for this long counts as dead.",
    ),
]
Objectives = Annotated[
    str | None,
    typer.Option(
        metavar="FIGURE:max|min,...",
        help="What to optimize, most important first. Default: many saved bytes, little simulated time, "
        "little CPU time of ksmd and few remote mappings.",
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="FIGURE<=NUMBER", help="Recommend only points within this limit; may be repeated."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Directory to write summary.json, config.toml, provenance.json and tables to."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print summary.json instead of the report.")]
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
    """Return the options of the run. Raises UserError where RunOptions raises SimulationError."""
    from actors.run_options import RunOptions
    from ksmcluster.api.running import one_line

    memory_check = not no_memory_check
    with one_line():
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
