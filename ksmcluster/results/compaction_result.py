"""What `ksmcluster compact` has found out: in memory, as files, and as the summary that a person reads.

docs/compaction.md describes every number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.compaction.pages.page_map import MAX_ORDER
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import (
    RelocationResult,
    relocation_results,
    simulated_seconds,
)
from cluster.spec.compaction import CompactionSpec
from cluster.spec.content import PAGE_SIZE
from cluster.spec.topology import Distances
from ksmcluster.config import resolved_toml
from ksmcluster.config.compaction import CompactionScenario, TriggeredMigrationConfig, to_compaction_spec
from ksmcluster.report import text
from ksmcluster.report.console import as_text, plain_table
from ksmcluster.results import relocations
from ksmcluster.results.directory import NODES, RELOCATIONS, config_digest, write_directory
from ksmcluster.results.node_reports import STATES, available, free_blocks, obtained, row, work
from ksmcluster.results.timing import Timing
from ksmcluster.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from ksmcluster.report.plots.picture import Picture

SCHEMA_VERSION = 1
#: What is reported of each driver, and its heading.
COUNTS = {
    "moved": "moved",
    "retried": "retried",
    "failed": "failed",
    "put_back": "put back",
    "refused": "refused",
}


@dataclass(frozen=True, eq=False, repr=False)
class CompactionResult:
    """What has become of every node."""

    config: CompactionScenario
    reports: tuple[NodeReport, ...]
    timing: Timing

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""
        config, reports = self.config, self.reports
        return {
            "schema_version": SCHEMA_VERSION,
            "ksmcluster_version": __version__,
            "title": config.simulation.title,
            "config_digest": config_digest(resolved_toml(config).encode()),
            "seed": config.simulation.seed,
            "kernel": config.migration.kernel,
            "trigger": config.migration.trigger,
            "nodes": config.machine.nodes,
            "order": config.migration.order,
            "requested": config.migration.attempts * config.machine.nodes,
            "obtained": obtained(reports),
            "available": self._available,
            "free_blocks": free_blocks(reports),
            **work(reports),
            "relocations": [relocations.summary(done) for done in self._relocated],
            "simulated_seconds": simulated_seconds(self._spec, reports),
            "timing": asdict(self.timing),
        }

    @property
    def _available(self) -> dict[str, int]:
        free = available(self.reports, self.config.migration.order)
        if self.config.migration.trigger != "direct":
            return free
        # Allocators keep what they get, once they are at work.
        kept = obtained(self.reports) | {"before": 0}
        return {name: count + kept[name] for name, count in free.items()}

    @cached_property
    def _spec(self) -> CompactionSpec:
        return to_compaction_spec(self.config)

    @cached_property
    def _relocated(self) -> list[RelocationResult]:
        return relocation_results(self._spec, self.reports)

    @cached_property
    def _distance(self) -> Distances:
        return self.config.machine.topology.build(self.config.machine.nodes)

    def relocations(self) -> RenderableType | None:
        """What was moved between nodes, for a person; None if the scenario moves nothing."""
        return relocations.report(self._relocated, self._distance) if self._relocated else None

    def summary_json(self) -> str:
        """The text of summary.json."""
        return json.dumps(self.summary, indent=2) + "\n"

    def tables(self) -> dict[str, pa.Table]:
        """The tables that `save` writes, by the names of their files."""
        import pyarrow as pa

        rows = [{"node": r.node, "simulated_seconds": r.seconds, **row(r)} for r in self.reports]
        tables = {NODES: pa.Table.from_pylist(rows)}
        if self._relocated:
            tables[RELOCATIONS] = relocations.table(self._relocated, self._distance)
        return tables

    def plot(self, kind: str = "blocks") -> Picture:
        """Draw a picture of this kind, as `ksmcluster plot` does: a matplotlib figure.

        Raises UserError if this result has no such picture, or matplotlib is not installed.
        """
        from ksmcluster.report.plots.kinds import picture
        from ksmcluster.report.run_data import of_result

        return picture(kind, [of_result(self)])

    def save(self, directory: str | Path) -> None:
        """Write summary.json, config.toml and the tables: all of them, or none if that fails."""
        write_directory(Path(directory), self)

    def __str__(self) -> str:
        return as_text(report(self))


def report(result: CompactionResult) -> RenderableType:
    """The summary that a person reads."""
    summary = result.summary
    size = text.size(PAGE_SIZE << summary["order"])
    sections: dict[str, RenderableType | None] = {
        f"Allocations of order {summary['order']} ({size} each): {summary['requested']:,} asked for": (
            _obtained(summary)
        ),
        **({"Direct compaction": _direct(summary["vmstat"])} if summary["trigger"] == "direct" else {}),
        "Free blocks, all nodes": _blocks(summary),
        "Pages by driver": drivers(summary["by_driver"]),
        "Moved between nodes": result.relocations(),
        "Contention": contention(summary["contention"]),
        "Time": _time(summary),
    }
    parts: list[RenderableType] = [_heading(result)]
    for title, section in sections.items():
        if section is not None:
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


def _who(migration: TriggeredMigrationConfig) -> tuple[str, ...]:
    match migration.trigger:
        case "proactive":
            return (f"kcompactd, proactiveness {migration.proactiveness}",)
        case "direct":
            modes = "async" if migration.mode == "async" else "async, then sync-light"
            return f"direct compaction, {modes}", f"{text.counted(migration.compactors, 'allocator')} a node"
        case _:
            return f"mode {migration.mode}", f"{text.counted(migration.compactors, 'compactor')} a node"


def _obtained(summary: Mapping[str, Any]) -> Table:
    table = plain_table("", "obtained", "failed", "available")
    says = {
        "before": "before compaction",
        "movable_off": "compacted, drivers' pages cannot move",
        "movable_on": "compacted, drivers' pages can move",
    }
    for name, what in says.items():
        got = summary["obtained"][name]
        style = "green" if got == summary["requested"] else "red"
        failed, there = summary["requested"] - got, summary["available"][name]
        table.add_row(Text(f"  {what}"), Text(f"{got:,}", style), f"{failed:,}", f"{there:,}")
    drained = [node for done in summary["relocations"] for node in done["drained"]]
    if offline := {node["node"] for node in drained if node["offline"]}:
        asked = len(offline) * summary["requested"] // summary["nodes"]
        where = f"    on {text.counted(len(offline), 'node')} that went offline"
        table.add_row(where, "", f"{asked:,}", "")
    return table


def _blocks(summary: Mapping[str, Any]) -> Table:
    table = plain_table("order", "size", *(head for head, _, _ in STATES.values()))
    for order in range(MAX_ORDER + 1):
        counts = [f"{summary['free_blocks'][name][order]:,}" for name in STATES]
        table.add_row(f"  {order}", text.size(PAGE_SIZE << order), *counts)
    return table


def drivers(by_driver: Mapping[str, Mapping[str, int]]) -> Table:
    """A line for each driver."""
    table = plain_table("driver", *COUNTS.values())
    for driver, counts in by_driver.items():
        table.add_row(Text(f"  {driver}"), *(f"{counts[name]:,}" for name in COUNTS))
    return table


def _direct(vmstat: Mapping[str, int]) -> Table:
    says = {
        "compact_stall": "rounds of compaction that an allocation waited for",
        "compact_success": "after which there was a block",
        "compact_fail": "after which there was none",
        "compact_deferred": "compactions put off, as they failed lately",
    }
    return _worded(says, vmstat)


def contention(counts: Mapping[str, int]) -> Table:
    """How compactors were in each other's way."""
    says = {
        "skipped_isolated": "pages passed by: isolated by another compactor",
        "skipped_locked": "pages passed by: locked by another compactor",
        "migrate_locked": "moves put off: locked by another compactor",
        "lock_waits": "waits for page locks",
    }
    return _worded(says, counts)


def _worded(says: Mapping[str, str], counts: Mapping[str, int]) -> Table:
    """A line for each of these counts, in words."""
    table = plain_table("", "")
    table.show_header = False
    for name, what in says.items():
        table.add_row(f"  {what}", f"{counts[name]:,}")
    return table


def _moved(summary: Mapping[str, Any]) -> str:
    within = text.size(summary["bytes_moved_within"])
    if not summary["relocations"]:
        return f"{within} moved on all"
    return f"moved {within} within nodes, {text.size(summary['bytes_moved_between'])} between them"


def _time(summary: Mapping[str, Any]) -> Table:
    timing = summary["timing"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    grid.add_column()
    milliseconds = summary["simulated_seconds"] * 1e3
    grid.add_row("  simulated", f"{milliseconds:.2f} ms on the slowest node; {_moved(summary)}")
    start, wall = text.seconds(timing["start_seconds"]), text.seconds(timing["wall_seconds"])
    grid.add_row("  on this host", f"{wall}, of which {start} to start ({timing['engine']})")
    return grid
