"""What `ksmcluster compact` has found out: in memory, as files, and as the summary that a person reads.

docs/compaction.md describes every number.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.migration.machine import NodeReport
from cluster.migration.pages import MAX_ORDER
from cluster.spec import PAGE_SIZE
from ksmcluster import __version__, text
from ksmcluster.config import resolved_toml
from ksmcluster.config.compaction import CompactionScenario, Migration
from ksmcluster.output import NODES, write_directory
from ksmcluster.report import WIDTH, printed

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
#: Counters of `VmStat` that tell of contention.
CONTENTION = ("skipped_isolated", "skipped_locked", "migrate_locked", "lock_waits")
#: What is reported of each driver, and its heading.
COUNTS = {
    "moved": "moved",
    "retried": "retried",
    "failed": "failed",
    "put_back": "put back",
    "refused": "refused",
}
#: The three states of memory: before, and compacted without and with pages that can move.
STATES: dict[str, tuple[str, Callable[[NodeReport], NDArray[np.int64]], Callable[[NodeReport], int]]] = {
    "before": ("before", lambda r: r.before, lambda r: r.obtained_before),
    "movable_off": ("movable off", lambda r: r.without, lambda r: r.obtained_without),
    "movable_on": ("movable on", lambda r: r.after, lambda r: r.obtained_after),
}


@dataclass(frozen=True, slots=True)
class CompactionTiming:
    """How the simulation itself was run: what differs between runs that find the same."""

    engine: str
    nodes_per_actor: int | None
    migration_actors: int | None
    wall_seconds: float
    start_seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class CompactionResult:
    """What has become of every node."""

    config: CompactionScenario
    reports: tuple[NodeReport, ...]
    timing: CompactionTiming

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""
        config, reports = self.config, self.reports
        vmstat = {name: sum(r.vmstat[name] for r in reports) for name in reports[0].vmstat}
        by_driver = {name: self._counts(name) for name in reports[0].by_driver}
        return {
            "schema_version": SCHEMA_VERSION,
            "ksmcluster_version": __version__,
            "title": config.simulation.title,
            "config_digest": f"blake3:{blake3(resolved_toml(config).encode()).hexdigest()}",
            "seed": config.simulation.seed,
            "kernel": config.migration.kernel,
            "trigger": config.migration.trigger,
            "nodes": config.machine.nodes,
            "order": config.migration.order,
            "requested": config.migration.attempts * config.machine.nodes,
            "obtained": {name: sum(map(count, reports)) for name, (_, _, count) in STATES.items()},
            "free_blocks": {
                name: np.sum([blocks(r) for r in reports], axis=0).tolist()
                for name, (_, blocks, _) in STATES.items()
            },
            "by_driver": by_driver,
            "bytes_moved": PAGE_SIZE * sum(counts["moved"] for counts in by_driver.values()),
            "contention": {name: vmstat.pop(name) for name in CONTENTION},
            "vmstat": vmstat,
            "simulated_seconds": max(r.seconds for r in reports),
            "timing": asdict(self.timing) | {"compactors_abandoned": sum(r.abandoned for r in reports)},
        }

    def _counts(self, driver: str) -> dict[str, int]:
        counts = [report.by_driver[driver].as_dict() for report in self.reports]
        return {name: sum(c[name] for c in counts) for name in counts[0]}

    def summary_json(self) -> str:
        """The text of summary.json."""
        return json.dumps(self.summary, indent=2) + "\n"

    def tables(self) -> dict[str, pa.Table]:
        """The tables that `save` writes, by the names of their files: one row a node."""
        import pyarrow as pa

        return {NODES: pa.Table.from_pylist([_row(report) for report in self.reports])}

    def save(self, directory: str | Path) -> None:
        """Write summary.json, nodes.parquet and config.toml: all of them, or none if that fails."""
        write_directory(Path(directory), self)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        return printed(report(self), console).rstrip()


def _row(report: NodeReport) -> dict[str, int | float]:
    row: dict[str, int | float] = {"node": report.node, "simulated_seconds": report.seconds}
    for name, (_, blocks, obtained) in STATES.items():
        row[f"obtained_{name}"] = obtained(report)
        row |= {f"free_{name}_{order}": int(count) for order, count in enumerate(blocks(report))}
    for driver, counts in report.by_driver.items():
        row |= {f"{driver}.{name}": count for name, count in counts.as_dict().items()}
    return row | report.vmstat


def report(result: CompactionResult) -> RenderableType:
    """The summary that a person reads."""
    summary = result.summary
    size = text.size(PAGE_SIZE << summary["order"])
    sections = {
        f"Allocations of order {summary['order']} ({size} each): {summary['requested']:,} asked for": (
            _obtained(summary)
        ),
        **({"Direct compaction": _direct(summary["vmstat"])} if summary["trigger"] == "direct" else {}),
        "Free blocks, all nodes": _blocks(summary),
        "Pages by driver": _drivers(summary["by_driver"]),
        "Contention": _contention(summary["contention"]),
        "Time": _time(summary),
    }
    parts: list[RenderableType] = [_heading(result)]
    for title, section in sections.items():
        parts += [Text(), Text(title, style="bold cyan"), section]
    return Group(*parts)


def _heading(result: CompactionResult) -> Text:
    summary, migration = result.summary, result.config.migration
    facts = (
        text.counted(summary["nodes"], "node"),
        f"kernel {summary['kernel']}",
        *_who(migration),
        f"seed {summary['seed']}",
    )
    lines = [Text(summary["title"], style="bold")] if summary["title"] else []
    return Text("\n").join([*lines, Text(", ".join(facts))])


def _who(migration: Migration) -> tuple[str, ...]:
    match migration.trigger:
        case "proactive":
            return (f"kcompactd, proactiveness {migration.proactiveness}",)
        case "direct":
            modes = "async" if migration.mode == "async" else "async, then sync-light"
            return f"direct compaction, {modes}", f"{text.counted(migration.compactors, 'allocator')} a node"
        case _:
            return f"mode {migration.mode}", f"{text.counted(migration.compactors, 'compactor')} a node"


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"  {heads[0]}", overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _obtained(summary: Mapping[str, Any]) -> Table:
    table = _table("", "obtained", "failed")
    says = {
        "before": "before compaction",
        "movable_off": "compacted, drivers' pages cannot move",
        "movable_on": "compacted, drivers' pages can move",
    }
    for name, what in says.items():
        got = summary["obtained"][name]
        style = "green" if got == summary["requested"] else "red"
        table.add_row(Text(f"  {what}"), Text(f"{got:,}", style), f"{summary['requested'] - got:,}")
    return table


def _blocks(summary: Mapping[str, Any]) -> Table:
    table = _table("order", "size", *(head for head, _, _ in STATES.values()))
    for order in range(MAX_ORDER + 1):
        counts = [f"{summary['free_blocks'][name][order]:,}" for name in STATES]
        table.add_row(f"  {order}", text.size(PAGE_SIZE << order), *counts)
    return table


def _drivers(by_driver: Mapping[str, Mapping[str, int]]) -> Table:
    table = _table("driver", *COUNTS.values())
    for driver, counts in by_driver.items():
        table.add_row(Text(f"  {driver}"), *(f"{counts[name]:,}" for name in COUNTS))
    return table


def _direct(vmstat: Mapping[str, int]) -> Table:
    table = _table("", "")
    table.show_header = False
    says = {
        "compact_stall": "rounds of compaction that an allocation waited for",
        "compact_success": "after which there was a block",
        "compact_fail": "after which there was none",
        "compact_deferred": "compactions put off, as they failed lately",
    }
    for name, what in says.items():
        table.add_row(f"  {what}", f"{vmstat[name]:,}")
    return table


def _contention(counts: Mapping[str, int]) -> Table:
    table = _table("", "")
    table.show_header = False
    says = {
        "skipped_isolated": "pages passed by: isolated by another compactor",
        "skipped_locked": "pages passed by: locked by another compactor",
        "migrate_locked": "moves put off: locked by another compactor",
        "lock_waits": "waits for page locks",
    }
    for name, what in says.items():
        table.add_row(f"  {what}", f"{counts[name]:,}")
    return table


def _time(summary: Mapping[str, Any]) -> Table:
    timing = summary["timing"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    grid.add_column()
    moved = text.size(summary["bytes_moved"])
    milliseconds = summary["simulated_seconds"] * 1e3
    grid.add_row("  simulated", f"{milliseconds:.2f} ms on the slowest node; {moved} moved on all")
    start, wall = text.seconds(timing["start_seconds"]), text.seconds(timing["wall_seconds"])
    grid.add_row("  on this host", f"{wall}, of which {start} to start ({timing['engine']})")
    if timing["compactors_abandoned"]:
        count = timing["compactors_abandoned"]
        grid.add_row("  abandoned", f"{text.counted(count, 'compactor')}: migration actors died")
    return grid
