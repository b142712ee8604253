"""The result of `ksmcluster compact`: in memory, as files, and as a text report.

docs/reference/compaction.md describes every number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
from cluster.spec.content import PAGE_SIZE
from cluster.spec.topology import Distances
from ksmcluster.config.compaction import CompactionScenario, to_compaction_spec
from ksmcluster.report import text
from ksmcluster.report.compaction_words import COUNTS, who
from ksmcluster.report.console import as_text, plain_table
from ksmcluster.results.columns import ColumnTable
from ksmcluster.results.compaction import relocations
from ksmcluster.results.compaction.node_reports import (
    STATES,
    WITHOUT_DRIVERS,
    States,
    available,
    free_blocks,
    obtained,
    row,
    work,
)
from ksmcluster.results.directory import NODES, RELOCATIONS, write_directory
from ksmcluster.results.identity import config_digest
from ksmcluster.results.provenance import provenance
from ksmcluster.results.timing import Timing

if TYPE_CHECKING:
    import pyarrow as pa

    from ksmcluster.report.plots.picture import Picture

SCHEMA_VERSION = 2


class NodeTable(ColumnTable):
    """Columns: `node`, `simulated_seconds`, and those of `node_reports.row`. One row per node."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CompactionResult:
    """The result of a compaction."""

    config: CompactionScenario
    #: One row per node.
    nodes: NodeTable
    #: The contents of summary.json.
    summary: dict[str, Any]
    #: The contents of provenance.json: how and where it was simulated, and the time that this took.
    provenance: dict[str, Any]
    #: The moves between nodes, in the order of the scenario.
    relocated: tuple[RelocationResult, ...] = ()

    @classmethod
    def of(
        cls, config: CompactionScenario, reports: Sequence[NodeReport], timing: Timing
    ) -> CompactionResult:
        """Return the result for the reports of all nodes, in their order."""
        spec = to_compaction_spec(config)
        relocated = tuple(relocation_results(spec, reports))
        states = _states(config)
        notes = [*config.notes, *_idle(config, reports)]
        rows = [{"node": r.node, "simulated_seconds": r.seconds, **row(r, states)} for r in reports]
        nodes = NodeTable({name: np.array([of_node[name] for of_node in rows]) for name in rows[0]})
        summary = {
            "schema_version": SCHEMA_VERSION,
            "title": config.simulation.title,
            "config_digest": config_digest(config),
            "seed": config.simulation.seed,
            "kernel": config.migration.kernel,
            "trigger": config.migration.trigger,
            "nodes": config.machine.nodes,
            "order": config.migration.order,
            "requested": config.migration.attempts * config.machine.nodes,
            "obtained": obtained(reports, states),
            "available": _available(config, reports),
            "free_blocks": free_blocks(reports, states),
            **work(reports),
            "relocations": [relocations.summary(done) for done in relocated],
            "simulated_seconds": simulated_seconds(spec, reports),
            **({"notes": notes} if notes else {}),
        }
        return cls(config, nodes, summary, provenance(asdict(timing)), relocated)

    @property
    def distance(self) -> Distances:
        """Distances between the nodes."""
        return self.config.machine.topology.build(self.config.machine.nodes)

    def relocations(self) -> RenderableType | None:
        """Return the report of the moves between nodes; None if the scenario has none."""
        return relocations.report(self.relocated, self.distance) if self.relocated else None

    def summary_json(self) -> str:
        """Return the text of summary.json."""
        return json.dumps(self.summary, indent=2) + "\n"

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables that `save` writes, by file name."""
        tables = {NODES: self.nodes.to_arrow()}
        if self.relocated:
            tables[RELOCATIONS] = relocations.table(self.relocated, self.distance)
        return tables

    def plot(self, kind: str = "blocks") -> Picture:
        """Draw a picture of this kind, as `ksmcluster plot` does: a matplotlib figure.

        Raises UserError if this result has no such picture, or matplotlib is not installed.
        """
        from ksmcluster.report.plots.kinds import picture
        from ksmcluster.report.run_data import of_result

        return picture(kind, [of_result(self)])

    def save(self, directory: str | Path) -> None:
        """Write summary.json, provenance.json, config.toml and the tables; if that fails, write nothing."""
        write_directory(Path(directory), self)

    def __str__(self) -> str:
        return as_text(report(self))

    def _repr_html_(self) -> str:
        from ksmcluster.report.html.cell import cell
        from ksmcluster.report.run_data import of_result

        return cell(of_result(self))

    def __repr__(self) -> str:
        asked, got = (self.summary[name] for name in ("requested", "obtained"))
        least = f"{got['movable_off']} to " if "movable_off" in got else ""
        blocks = f"{least}{got['movable_on']} of {asked} blocks obtained"
        return f"<CompactionResult: {text.counted(self.summary['nodes'], 'node')}, {blocks}>"


def _idle(config: CompactionScenario, reports: Sequence[NodeReport]) -> Iterator[str]:
    """Yield a note if kcompactd had no reason to begin (should_proactive_compact_node())."""
    if config.migration.trigger == "proactive" and not any(
        report.vmstat["compact_migrate_scanned"] for report in reports
    ):
        yield (
            "kcompactd found no node fragmented enough and did nothing, at migration.proactiveness = "
            f"{config.migration.proactiveness}; it begins the earlier, the larger that is"
        )


def _states(config: CompactionScenario) -> States:
    return STATES if config.driver else WITHOUT_DRIVERS


def _available(config: CompactionScenario, reports: Sequence[NodeReport]) -> dict[str, int]:
    states = _states(config)
    free = available(reports, config.migration.order, states)
    if config.migration.trigger != "direct":
        return free
    # Allocators keep the blocks that they get.
    kept = obtained(reports, states) | {"before": 0}
    return {name: count + kept[name] for name, count in free.items()}


def report(result: CompactionResult) -> RenderableType:
    """Return the text report."""
    summary = result.summary
    size = text.size(PAGE_SIZE << summary["order"])
    sections: dict[str, RenderableType | None] = {
        f"Allocations of order {summary['order']} ({size} each): {summary['requested']:,} requested": (
            _obtained(summary)
        ),
        **({"Direct compaction": _direct(summary["vmstat"])} if summary["trigger"] == "direct" else {}),
        "Free blocks, all nodes": _blocks(summary, _states(result.config)),
        "Pages by driver": drivers(summary["by_driver"]),
        "Moved between nodes": result.relocations(),
        "Contention": contention(summary["contention"]),
        "Time": _time(summary, result.provenance["timing"]),
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
        *who(migration),
        f"seed {summary['seed']}",
    )
    lines = [Text(summary["title"], style="bold")] if summary["title"] else []
    notes = [Text(text.one_line(note), style="yellow") for note in summary.get("notes", ())]
    return Text("\n").join([*lines, Text(", ".join(facts)), *notes])


def _obtained(summary: Mapping[str, Any]) -> Table:
    table = plain_table("", "obtained", "failed", "available")
    says = {
        "before": "before compaction",
        "movable_off": "compacted, driver pages unmovable",
        "movable_on": "compacted, driver pages movable",
    }
    if "movable_off" not in summary["obtained"]:
        says = {"before": "before compaction", "movable_on": "compacted"}
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


def _blocks(summary: Mapping[str, Any], states: States) -> Table:
    table = plain_table("order", "size", *(head for head, _, _ in states.values()))
    for order in range(MAX_ORDER + 1):
        counts = [f"{summary['free_blocks'][name][order]:,}" for name in states]
        table.add_row(f"  {order}", text.size(PAGE_SIZE << order), *counts)
    return table


def drivers(by_driver: Mapping[str, Mapping[str, int]]) -> Table:
    """Return a table with a line per driver."""
    table = plain_table("driver", *COUNTS.values())
    for driver, counts in by_driver.items():
        table.add_row(Text(f"  {driver}"), *(f"{counts[name]:,}" for name in COUNTS))
    return table


def _direct(vmstat: Mapping[str, int]) -> Table:
    says = {
        "compact_stall": "direct compactions (an allocation waits)",
        "compact_success": "that produced a block",
        "compact_fail": "that produced none",
        "compact_deferred": "compactions deferred after failures",
        "compact_endless": "allocations abandoned: their compaction never ends on this kernel",
    }
    return _worded(says, vmstat)


def contention(counts: Mapping[str, int]) -> Table:
    """Return a table of how compactors disturbed each other."""
    says = {
        "skipped_isolated": "pages skipped: isolated by another compactor",
        "skipped_locked": "pages skipped: locked by another compactor",
        "migrate_locked": "moves postponed: locked by another compactor",
        "lock_waits": "waits for page locks",
    }
    return _worded(says, counts)


def _worded(says: Mapping[str, str], counts: Mapping[str, int]) -> Table:
    """Return a table of counts with their descriptions."""
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


def _time(summary: Mapping[str, Any], timing: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    grid.add_column()
    milliseconds = summary["simulated_seconds"] * 1e3
    grid.add_row("  simulated", f"{milliseconds:.2f} ms on the slowest node; {_moved(summary)}")
    start, wall = text.seconds(timing["start_seconds"]), text.seconds(timing["wall_seconds"])
    grid.add_row("  on this host", f"{wall}, including {start} to start ({timing['engine']})")
    return grid
