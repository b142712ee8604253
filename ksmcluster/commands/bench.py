"""`ksmcluster bench`: measure the simulator's speed and memory, and detect regressions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.spec.limits import MOST_MEMORY, MOST_NODES, MOST_PAGES
from ksmcluster.bench.plot import is_plot
from ksmcluster.bench.tools.sizes import FULL, SHORT, parse_numbers
from ksmcluster.commands.options import EngineName, NodesPerActor, Quiet
from ksmcluster.commands.output import Target, emit, replacing
from ksmcluster.report.plots.files import check_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksmcluster.bench.tools.measure import BenchOutcome
    from ksmcluster.report.progress import Tell

app = typer.Typer(
    help="Measure the simulator's speed and memory. A reference runs at the same time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

REPEAT = "Repetitions; the median counts."


def _option(what: str, default: object, **more: Any) -> Any:
    """An option whose default depends on --short."""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return typer.Option(help=f"{what} [default: {shown}]", **more)


Short = Annotated[bool, typer.Option("--short", help="Use small default sizes, for CI.")]
Repeat = Annotated[int | None, _option(REPEAT, FULL.repeat, min=1)]
StartupRepeat = Annotated[int | None, _option(REPEAT, FULL.startup_repeat, min=1)]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the measures for github-action-benchmark (bigger is better)."),
]
Compare = Annotated[Path | None, typer.Option(help="Earlier --json file; exit with 1 if a ratio got worse.")]
Most = Annotated[
    str, typer.Option("--max-regression", metavar="SHARE", help="Tolerance of --compare, as in 0.1.")
]


@app.command("pass", short_help="Passes on one core, compared with ksmd's CPU time.")
def passes(
    pages: Annotated[
        int | None, _option("Pages on the node.", FULL.pass_pages, min=1, max=MOST_MEMORY)
    ] = None,
    ksmd: Annotated[
        bool, typer.Option("--ksmd", help="Also run this host's ksmd on real memory; needs root.")
    ] = False,
    short: Short = False,
    repeat: Repeat = None,
    as_json: Json = None,
    compare: Compare = None,
    max_regression: Most = "20%",
    quiet: Quiet = False,
) -> None:
    """Time passes over memory that does not change, on one core: the first, the merging and a steady pass.

    Half of the pages are unique; the other half form groups of 16 equal pages. Contents are symbolic, or
    bytes that are hashed and compared. The reference is ksmd's CPU time: measured on this host with --ksmd,
    otherwise modelled.
    """
    sizes = SHORT if short else FULL

    def measure(tell: Tell) -> BenchOutcome:
        from ksmcluster.bench.passes import measure_passes
        from ksmcluster.bench.passes_outcome import outcome

        return outcome(
            measure_passes(pages or sizes.pass_pages, repeat or sizes.repeat, with_ksmd=ksmd, tell=tell)
        )

    _bench(measure, as_json, compare, max_regression, quiet)


@app.command(short_help="Pages/s for a growing number of nodes, in one and in several processes.")
def scaling(
    nodes: Annotated[
        str | None, _option("Numbers of NUMA nodes.", FULL.scaling_nodes, metavar="N,N,...")
    ] = None,
    pages_per_node: Annotated[
        int | None, _option("Pages on each node.", FULL.scaling_pages, min=1, max=MOST_MEMORY)
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Ray actors, or everything in this process.")
    ] = EngineName.RAY,
    processes: Annotated[int | None, _option("Actors that share the nodes.", "one per core", min=1)] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|.svg|.pdf", help="Plot pages/s and efficiency against nodes."),
    ] = None,
    short: Short = False,
    repeat: Repeat = None,
    as_json: Json = None,
    compare: Compare = None,
    max_regression: Most = "20%",
    quiet: Quiet = False,
) -> None:
    """Time a growing number of nodes with equally many pages each, and measure their messages.

    The first and the merging pass are timed, without the start-up. With Ray, the largest machine also runs in
    a single process, which shows the speed-up of several processes.
    """
    sizes = SHORT if short else FULL
    counts = parse_numbers("--nodes", nodes, MOST_NODES) if nodes else sizes.scaling_nodes
    picture = Target("--plot", plot, is_plot) if plot else None
    if picture:
        check_picture(picture.path, picture.option)
        picture.check()

    def measure(tell: Tell) -> BenchOutcome:
        from ksmcluster.bench.plot import draw
        from ksmcluster.bench.scaling import measure_scaling
        from ksmcluster.bench.scaling_outcome import outcome

        found = measure_scaling(
            counts,
            pages_per_node or sizes.scaling_pages,
            repeat or sizes.repeat,
            engine=engine.value,
            processes=processes,
            tell=tell,
        )
        if picture:
            with replacing(picture) as file:
                draw(found, file)
        return outcome(found)

    _bench(measure, as_json, compare, max_regression, quiet)


@app.command(short_help="The command simulate, compared with Ray alone.")
def startup(
    nodes: Annotated[int | None, _option("NUMA nodes.", FULL.startup_nodes, min=1, max=MOST_NODES)] = None,
    nodes_per_actor: Annotated[
        str | None,
        _option("Numbers of NUMA nodes that share an actor.", FULL.startup_packed, metavar="N,N,..."),
    ] = None,
    short: Short = False,
    repeat: StartupRepeat = None,
    as_json: Json = None,
    compare: Compare = None,
    max_regression: Most = "20%",
    quiet: Quiet = False,
) -> None:
    """Time `simulate` with the default scenario, alternating with Ray alone, which starts empty actors."""
    sizes = SHORT if short else FULL
    packed = (
        parse_numbers("--nodes-per-actor", nodes_per_actor, MOST_NODES)
        if nodes_per_actor
        else sizes.startup_packed
    )

    def measure(tell: Tell) -> BenchOutcome:
        from ksmcluster.bench.startup import bench_startup

        return bench_startup(nodes or sizes.startup_nodes, packed, repeat or sizes.startup_repeat, tell)

    _bench(measure, as_json, compare, max_regression, quiet)


@app.command(short_help="Pages that compaction moves per second.")
def compaction(
    scenario: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Scenario of `compact`.")
    ] = "compaction-zram",
    nodes: Annotated[int | None, _option("NUMA nodes.", FULL.compaction_nodes, min=1, max=MOST_NODES)] = None,
    pages_per_node: Annotated[
        int | None, _option("Pages on each node.", FULL.compaction_pages, min=1, max=MOST_MEMORY)
    ] = None,
    short: Short = False,
    repeat: Repeat = None,
    as_json: Json = None,
    compare: Compare = None,
    max_regression: Most = "20%",
    quiet: Quiet = False,
) -> None:
    """Measure how many pages compaction moves per second, on one core."""
    sizes = SHORT if short else FULL

    def measure(tell: Tell) -> BenchOutcome:
        from ksmcluster.bench.compaction import bench_compaction

        return bench_compaction(
            scenario,
            nodes or sizes.compaction_nodes,
            pages_per_node or sizes.compaction_pages,
            repeat or sizes.repeat,
            tell,
        )

    _bench(measure, as_json, compare, max_regression, quiet)


@app.command(short_help="Bytes per page, and the estimate for larger machines.")
def memory(
    nodes: Annotated[int | None, _option("NUMA nodes.", FULL.memory_nodes, min=1, max=MOST_NODES)] = None,
    pages_per_node: Annotated[
        str | None,
        _option("Pages on each node; at least two sizes.", FULL.memory_pages, metavar="N,N,..."),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Ray actors, or everything in one process.")
    ] = EngineName.INLINE,
    nodes_per_actor: NodesPerActor = 1,
    short: Short = False,
    as_json: Json = None,
    compare: Compare = None,
    max_regression: Most = "20%",
    quiet: Quiet = False,
) -> None:
    """Measure resident memory over all processes: bytes per page, and an estimate for 1 TiB and 16 TiB.

    A size is skipped if, judging by the smaller ones, it would not fit into memory.
    """
    sizes = SHORT if short else FULL
    pages = (
        parse_numbers("--pages-per-node", pages_per_node, MOST_PAGES)
        if pages_per_node
        else sizes.memory_pages
    )

    def measure(tell: Tell) -> BenchOutcome:
        from actors.run_options import RunOptions
        from ksmcluster.bench.memory import bench_memory

        return bench_memory(
            nodes or sizes.memory_nodes,
            pages,
            RunOptions(engine.value, nodes_per_actor=nodes_per_actor),
            tell,
        )

    _bench(measure, as_json, compare, max_regression, quiet)


def _bench(
    measure: Callable[[Tell], BenchOutcome],
    as_json: Path | None,
    compare: Path | None,
    most: str,
    quiet: bool,
) -> None:
    """Measure, print, write and compare; exit with 1 if a ratio is worse than allowed."""
    from rich.console import Console

    from ksmcluster.bench.tools.show import shown_changes, shown_outcome
    from ksmcluster.bench.tools.tracker import changes, is_measures, parse_share, read_baseline, to_json
    from ksmcluster.report.console import error_console, printed
    from ksmcluster.report.progress import telling

    share = parse_share(most)
    target = Target("--json", as_json, is_measures) if as_json else None
    if target:
        target.check()
    baseline = read_baseline(compare) if compare else None
    with telling(error_console(), quiet=quiet) as tell:
        outcome = measure(tell)
    emit(printed(shown_outcome(outcome), Console()))
    if target:
        with replacing(target) as file:
            file.write_text(to_json(outcome.measures))
    if baseline is not None:
        compared = changes(outcome.measures, baseline)
        emit(printed(shown_changes(compared, share), Console()))
        if any(change.share > share for change in compared):
            raise typer.Exit(1)
