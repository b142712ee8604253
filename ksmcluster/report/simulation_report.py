"""The text report at the end of a simulation, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.spec.content import PAGE_SIZE
from cluster.spec.topology import Distances
from ksmcluster.config import Scenario
from ksmcluster.report import text
from ksmcluster.report.console import plain_table, printed
from ksmcluster.report.run_time import DoneRun, faster
from ksmcluster.results import huge_pages, processes
from ksmcluster.results.compaction import relocations
from ksmcluster.results.compaction.compaction_result import contention, drivers
from ksmcluster.results.compaction.node_reports import STATES
from ksmcluster.results.processes import CensusTable

#: Nodes per line of a picture.
NODES_IN_LINE = 64
#: The kernel's counters, in two columns.
LEFT = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages", "cow_ksm")
RIGHT = (
    "full_scans",
    "pages_scanned",
    "pages_skipped",
    "rmap_items",
    "stable_node_chains",
    "stable_node_dups",
)


class Reported(Protocol):
    """The parts of `ksmcluster.Result` that its report shows."""

    @property
    def config(self) -> Scenario:
        """The scenario."""

    @property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""

    @property
    def provenance(self) -> dict[str, Any]:
        """The contents of provenance.json."""

    @property
    def processes(self) -> CensusTable:
        """KSM statistics of each process."""

    @property
    def mappings(self) -> CensusTable:
        """KSM statistics of the mappings of each name."""

    @property
    def relocated(self) -> tuple[RelocationResult, ...]:
        """The moves between nodes."""

    @property
    def distance(self) -> Distances:
        """Distances between the nodes."""

    def by_node(self, name: str) -> NDArray[np.int64]:
        """Return a statistic as int64[passes, nodes]."""


def rendered(result: Reported, console: Console) -> str:
    """Return the report for the console, with a fixed width: in a narrow console, lines wrap."""
    return printed(report(result, plain=not console.encoding.lower().startswith("utf")), console)


def report(result: Reported, *, plain: bool = False) -> RenderableType:
    """Return the report; `plain` draws with ASCII characters."""
    frames = result.summary["ksm_frame_mappings"]
    sections = {
        "Memory": _memory(result, plain),
        **_notes(result),
        "Pass by pass": _passes(result, plain),
        "Counters of the kernel": _counters(result),
        **_huge_pages(result),
        **processes.report(result.processes, result.mappings, frames, plain=plain),
        "Across the nodes": _nodes(result, plain),
        **_compaction(result),
        "Time": _time(result),
    }
    parts: list[RenderableType] = [_heading(result)]
    for title, section in sections.items():
        parts += [Text(), Text(title, style="bold cyan"), section]
    return Group(*parts)


def _heading(result: Reported) -> Text:
    summary = result.summary
    facts = (
        text.counted(summary["nodes"], "node"),
        f"kernel {summary['kernel']}",
        text.counted(summary["passes"], "pass"),
        f"seed {summary['seed']}",
    )
    lines = [Text(text.one_line(summary["title"]), style="bold")] if summary["title"] else []
    return Text("\n").join([*lines, Text(", ".join(facts))])


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    return grid


def _memory(result: Reported, plain: bool) -> Table:
    derived = result.summary["derived"]
    before = derived["memory_before_bytes"]
    grid = _grid()
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    mean, share = derived["saved_bytes_mean"], derived["saved_fraction_mean"]
    grid.add_row("  saved", text.size(mean), text.percent(share), _bar(share, "green", plain))
    low, high = (text.size(derived[f"saved_bytes_{end}"]) for end in ("min", "max"))
    for line in ("mean over the last half of the time,", f"from {low} to {high}"):
        grid.add_row("", "", "", Text(line, "dim"))
    sizes = {"without KSM": before, "with KSM": derived["memory_after_bytes"]}
    for name, count in (*sizes.items(), ("saved", derived["saved_bytes"])):
        share = count / before if before else 0
        bar = _bar(share, "green" if name == "saved" else "blue", plain)
        grid.add_row(f"  end: {name}", text.size(count), text.percent(share), bar)
    if (profit := derived["general_profit_bytes"]) < 0:
        # The metadata of ksmd takes more memory than KSM saves.
        grid.add_row("  general_profit", text.size(profit), "", Text("KSM costs memory here", "yellow"))
    return grid


def _bar(share: float, style: str, plain: bool) -> Text:
    return Text(text.bar(share, 32, plain=plain), style)


def _notes(result: Reported) -> dict[str, RenderableType]:
    """Return the notes, if there are any."""
    notes = [
        Padding(Text(text.one_line(note), style="yellow"), (0, 0, 0, 2)) for note in result.summary["notes"]
    ]
    return {"Notes": Group(*notes)} if notes else {}


def _huge_pages(result: Reported) -> dict[str, RenderableType]:
    """Return the cost in huge pages, if there were any."""
    found = result.summary.get("huge_pages")
    return {} if found is None else {"Huge pages": huge_pages.report(found)}


def _passes(result: Reported, plain: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("  pass", "time", "shared", "sharing", "unshared", "volatile", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    columns = [result.by_node(name).sum(axis=1) for name in names]
    saved, took = (result.summary["by_pass"][name] for name in ("saved_bytes", "scan_seconds"))
    before = result.summary["derived"]["memory_before_bytes"] or 1
    for index, count in enumerate(saved):
        numbers = [f"{column[index]:,}" for column in columns]
        picture = Text(text.bar(min(count / before, 1), 10, plain=plain), "green")
        table.add_row(str(index + 1), text.seconds(took[index]), *numbers, text.size(count), picture)
    return table


def _counters(result: Reported) -> Table:
    numbers = result.summary["gauges"] | result.summary["counters"]
    grid = _grid()
    grid.add_column(justify="right", min_width=14)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", min_width=14)
    for left, right in zip(LEFT, RIGHT, strict=True):
        grid.add_row(f"  {left}", f"{numbers[left]:,}", f"  {right}", f"{numbers[right]:,}")
    return grid


def _nodes(result: Reported, plain: bool) -> RenderableType:
    derived, counters = result.summary["derived"], result.summary["counters"]
    grid = _grid()
    grid.add_column()
    merged, across = counters["pages_merged"], counters["pages_merged_remote"]
    grid.add_row("  merges", f"{merged:,}, {across:,} of them with a page of another node")
    if derived["ksm_mappings_mean_distance"] is not None:
        share = text.percent(derived["ksm_mappings_remote_fraction"])
        distance = derived["ksm_mappings_mean_distance"]
        grid.add_row("  KSM mappings", f"{share} remote, mean distance {distance:.1f} (local: 10)")
    sent = result.summary["by_pass"]["bytes_sent"]
    most = sent.index(max(sent))
    in_all = text.size(counters["bytes_sent"])
    grid.add_row("  messages", f"{in_all} between nodes, most in pass {most + 1}: {text.size(sent[most])}")
    pictures = (
        _picture(title, pages[-1], style, plain)
        for title, pages, style in (
            ("memory in use", result.by_node("frames_used"), "blue"),
            ("KSM pages held", result.by_node("pages_shared"), "green"),
            ("KSM pages mapped remotely", result.by_node("ksm_mappings_remote"), "magenta"),
        )
        if pages[-1].any()
    )
    return Group(grid, *pictures)


def _picture(title: str, pages: NDArray[np.int64], style: str, plain: bool) -> Text:
    """Return a heading, and a character per node."""
    low, high = text.size(int(pages.min()) * PAGE_SIZE), text.size(int(pages.max()) * PAGE_SIZE)
    picture = Text(f"  {title}, node by node: {low} to {high}\n")
    heights = text.strip(pages.tolist(), plain=plain)
    lines = [heights[at : at + NODES_IN_LINE] for at in range(0, len(heights), NODES_IN_LINE)]
    return picture.append("\n".join(f"  {line}" for line in lines), style)


def _compaction(result: Reported) -> dict[str, RenderableType]:
    """Return the compaction after each pass, if there was any."""
    if (migration := result.summary.get("migration")) is None:
        return {}
    order, requested = migration["order"], migration["requested"]
    size = text.size(PAGE_SIZE << order)
    by_pass = migration["by_pass"]
    moved = {"pages moved": by_pass["pages_moved"], "of them KSM": by_pass["ksm_pages_moved"]}
    asked = f"Compaction after each pass, blocks of order {order} ({size} each): {requested:,} requested"
    return {
        asked: _by_pass(_by_state(by_pass["obtained"]) | moved),
        "Such blocks in all free memory": _by_pass(_by_state(by_pass["available"])),
        "Pages moved by owner, all passes": drivers(migration["by_driver"]),
        "Contention of compactors": contention(migration["contention"]),
        **_relocations(result),
    }


def _relocations(result: Reported) -> dict[str, RenderableType]:
    """Return the moves between nodes, if there were any."""
    if not result.relocated:
        return {}
    return {"Moved between nodes": relocations.report(result.relocated, result.distance)}


def _by_state(counts: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return the counts by the heading of the state."""
    return {head: counts[name] for name, (head, _, _) in STATES.items()}


def _by_pass(columns: Mapping[str, Sequence[int]]) -> Table:
    """Return a table with a line per pass."""
    table = plain_table("pass", *columns)
    for number, cells in enumerate(zip(*columns.values(), strict=True), 1):
        table.add_row(f"  {number:>4}", *(f"{cell:,}" for cell in cells))
    return table


def _full_scan(result: Reported) -> tuple[str, ...]:
    """Return the time of the last pass, its settings, and ksmd's load; empty if ksmd did not run."""
    by_pass = result.summary["by_pass"]
    took, cpu, pages = (by_pass[name][-1] for name in ("scan_seconds", "ksmd_cpu_seconds", "pages_to_scan"))
    if not by_pass["windows"][-1]:
        return ()
    knobs = f"pages_to_scan={pages}, sleep_millisecs={result.config.ksm.sleep_millisecs}"
    skipped = int(result.by_node("pages_skipped")[-1].sum())
    last = "the last pass" + (f" ({skipped:,} skipped)" if skipped else "")
    lines = f"{text.seconds(took)} at {knobs}", f"in {last}, ksmd at {text.percent(cpu / took)} of a CPU"
    if result.config.ksm.threads == "one":
        return lines
    threads = text.counted(result.config.machine.nodes, "thread")
    return *lines, f"(sum of its {threads}, one per node)"


def _costs(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the costs of merged pages outside ksmd: rmap walks, and copies on write."""
    walks = summary.get("migration", {}).get("rmap_walks", {})
    if walks.get("number"):
        longest, mean = (f"{walks[name + '_seconds'] * 1e6:,.1f} us" for name in ("longest", "mean"))
        yield (
            "  rmap walks of KSM",
            f"longest {longest} for {walks['longest']:,} mappings, mean {mean}",
        )
    derived = summary["derived"]
    if rate := derived["cow_ksm_per_second"]:
        took = derived["cow_ksm_seconds"] / derived["simulated_seconds"] * 1e6
        yield "  copy-on-write", f"{rate:,.1f} faults/s on KSM pages, {took:,.0f} us per second"


def _time(result: Reported) -> Table:
    derived, timing = result.summary["derived"], result.provenance["timing"]
    grid = _grid()
    grid.add_column()
    cpu = text.seconds(derived["ksmd_cpu_seconds"])
    grid.add_row("  simulated", f"{text.seconds(derived['simulated_seconds'])}, ksmd's CPU time {cpu}")
    for name, value in zip(("  a full scan", "", ""), _full_scan(result), strict=False):
        grid.add_row(name, value)
    windows = result.summary["by_pass"]["windows"]
    if not windows[-1]:
        grid.add_row("  ksmd", "does not run")
    if max(windows) > 1:
        low, high = min(windows), max(windows)
        each = f"{high}" if low == high else f"{low} to {high}"
        grid.add_row("  windows", f"{each} per pass; the processes write between them")
    if migration := result.summary.get("migration"):
        milliseconds, moved = migration["simulated_seconds"] * 1e3, text.size(migration["bytes_moved_within"])
        grid.add_row("  compaction", f"{milliseconds:.2f} ms on the slowest nodes; {moved} moved on all")
    for name, value in _costs(result.summary):
        grid.add_row(name, value)
    if result.config.ksm.advisor_mode == "scan-time":
        pages = result.summary["by_pass"]["pages_to_scan"]
        grid.add_row(
            "  pages_to_scan", f"{pages[0]:,} in the first pass, {pages[-1]:,} in the last (advisor)"
        )
    start = text.seconds(timing["start_seconds"])
    engine = timing["engine"]
    grid.add_row(
        "  on this host", f"{text.seconds(timing['wall_seconds'])}, including {start} to start ({engine})"
    )
    if timing["pages_per_second"]:
        grid.add_row("  speed", f"{timing['pages_per_second']:,.0f} pages/s")
    for number, way in enumerate(_faster(result)):
        grid.add_row("" if number else "  the same, faster", way)
    return grid


def _faster(result: Reported) -> Iterator[str]:
    """Yield options that would have made this run faster on this host."""
    timing, nodes = result.provenance["timing"], result.summary["nodes"]
    if timing["nodes_per_actor"] and timing["cores"]:
        yield from faster(
            DoneRun(
                nodes,
                actors=-(-nodes // timing["nodes_per_actor"]),
                cores=timing["cores"],
                pages=result.summary["gauges"]["pages_mapped"],
                passes=result.summary["passes"],
                start_seconds=timing["start_seconds"],
                wall_seconds=timing["wall_seconds"],
            )
        )
