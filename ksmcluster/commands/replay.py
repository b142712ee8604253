"""`ksmcluster replay`: run scenario scripts, or compare records of real kernels with the simulation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.script.record import Json, dumps
from cluster.spec.limits import MOST_NODES
from cluster.spec.profile import (
    PROFILES,
    Profile,
    UnknownKernelError,
    note_of_release,
    profile_of_release,
)
from cluster.spec.scenario import KsmSpec
from ksmcluster.report.text import message as to_show
from ksmcluster.report.text import one_line
from ksmcluster.validate.replay import (
    ENGINES,
    RECORD_SUFFIXES,
    SCRIPT_SUFFIX,
    NoRecordsHereError,
    OnlyTimesError,
    RecordComparison,
    ReplayError,
    ReplayFile,
    ReplayTarget,
    compare_records,
    find,
    replay_script,
)

_DEFAULT = KsmSpec().kernel
_NO_WIDTH = 10_000  # columns: tables keep their width in narrow terminals


def replay(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Scripts (*.scn), records, or folders of them.")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="The paths are records: replay each and list the differences.")
    ] = False,
    kernel: Annotated[
        str | None,
        typer.Option(
            help=f"Kernel to simulate: {', '.join(PROFILES)}, or a full release. [default: {_DEFAULT}, and "
            "with --compare the recorded one]"
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="NUMA nodes of the machine. [default: what the script requires]")
    ] = None,
    engine: Annotated[str, typer.Option(help=f"Engine to run on: {', '.join(ENGINES)}.")] = "exact",
    nodes_per_actor: Annotated[
        int, typer.Option(help="For the ray engine: NUMA nodes per actor.", min=1)
    ] = 1,
    tree_shape: Annotated[
        bool,
        typer.Option(
            "--tree-shape/--no-tree-shape",
            help="For the inline and ray engines: model the shapes of the kernel's trees; simulate does not.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line per script.")] = False,
) -> None:
    """Run scenario scripts and print what the machine looks like after each step.

    With --compare, replay records of real kernels; the exit code is 1 if any differs. Add --kernel to replay
    them on another kernel: all differences are then listed, which are those between the two kernels.

    Mistakes in scripts and paths end with one line and exit code 2.
    """
    if engine not in ENGINES:
        _fail(f"--engine {engine}: no such engine; choose {' or '.join(ENGINES)}")
    profile = None if kernel is None else _profile(kernel)
    if nodes is not None and not 1 <= nodes <= MOST_NODES:
        _fail(f"--nodes {nodes}: not possible; choose 1 to {MOST_NODES}")
    if compare and nodes is not None:
        _fail("--compare: the records fix the number of nodes; leave out --nodes")
    if engine == "exact" and not tree_shape:
        _fail("--no-tree-shape: the exact engine always models tree shapes; choose --engine inline or ray")
    on = ReplayTarget(engine, nodes_per_actor, tree_shape)
    try:
        with on.started() as on:
            if compare:
                _compare(paths, on, profile, as_json)
            else:
                _run(paths, on, profile or PROFILES[_DEFAULT], nodes, as_json)
    except ReplayError as error:
        _fail(str(error))


def _profile(kernel: str) -> Profile:
    try:
        note = note_of_release(kernel)
    except UnknownKernelError:
        _fail(f"--kernel {kernel}: no such kernel; choose one of {', '.join(PROFILES)}")
    if note:
        typer.echo(note, err=True)
    return profile_of_release(kernel)


def _run(paths: list[Path], on: ReplayTarget, profile: Profile, nodes: int | None, as_json: bool) -> None:
    for found in find(paths, (SCRIPT_SUFFIX,)):
        document = replay_script(found.name, found.path, on, profile, nodes)
        if as_json:
            typer.echo(dumps(document))
        else:
            _print_tables(document)


def _compare(paths: list[Path], on: ReplayTarget, profile: Profile | None, as_json: bool) -> None:
    done: list[RecordComparison] = []
    for found in find(paths, RECORD_SUFFIXES):
        for comparison in _comparisons(found, on, profile, explain_equal=as_json):
            done.append(comparison)
            if not as_json:
                for line in comparison.lines():
                    typer.echo(one_line(line))
    equal = sum(comparison.difference is None for comparison in done)
    if as_json:
        records = [comparison.as_json() for comparison in done]
        typer.echo(json.dumps({"records": records, "equal": equal, "total": len(done)}))
    else:
        for scope in dict.fromkeys(comparison.scope for comparison in done if comparison.scope):
            typer.echo(scope)
        typer.echo(f"{equal} of {len(done)} equal")
    if equal < len(done):
        raise typer.Exit(1)


def _comparisons(
    found: ReplayFile, on: ReplayTarget, profile: Profile | None, *, explain_equal: bool
) -> Iterator[RecordComparison]:
    try:
        yield from compare_records(found.name, found.path, on, profile, explain_equal=explain_equal)
    except OnlyTimesError as error:
        typer.echo(one_line(str(error)), err=True)
    except NoRecordsHereError:
        if found.named:
            raise
        typer.echo(one_line(f"{found.path}: no records, skipped"), err=True)


def _print_tables(document: Json) -> None:
    console = Console(width=_NO_WIDTH)
    nodes = document["topology"]["nodes"]
    title = f"{document['scenario']} (kernel {document['kernel']}, {nodes} node{'s' if nodes > 1 else ''})"
    if "skipped" in document:
        title += f": skipped, it requires {document['skipped']}"
    console.print(Text(one_line(title), style="bold"))
    if document["records"]:
        console.print(_table(document["records"]))
    for event in document["events"]:
        if event["err"] or event["what"] in ("move", "noscan"):
            result = event["err"] or event["ret"]
            console.print(Text(one_line(f"line {event['line']}: {event['what']} {result}")))


def _table(records: list[Json]) -> Table:
    """Return a table of counters with one row per step, without those that are always 0."""
    counters = [_counters(record) for record in records]
    names = [name for name in counters[0] if any(values[name] for values in counters)]
    table = Table("step", box=None, pad_edge=False)
    for name in names:
        short = name.removeprefix("pages_").removeprefix("stable_node_").removeprefix("ksm_")
        table.add_column(short, justify="right")
    for record, values in zip(records, counters, strict=True):
        table.add_row(Text(one_line(record["label"])), *(str(values[name]) for name in names))
    return table


def _counters(record: Json) -> dict[str, int]:
    """Return the counters of KSM, and of huge pages if the script has any."""
    thp = {name: value for name, value in record["vmstat"].items() if name.startswith("thp_")}
    return {**record["sysfs"], **thp}


def _fail(message: str) -> NoReturn:
    typer.echo(to_show(message), err=True)
    raise typer.Exit(2)
