"""Numbers of a compaction, from the reports of nodes, for summaries and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.compaction.scenario.node_report import NodeReport, blocks_of
from cluster.spec.content import PAGE_SIZE

#: Counters of `VmStat` for contention.
CONTENTION = ("skipped_isolated", "skipped_locked", "migrate_locked", "lock_waits")
States = dict[str, tuple[str, Callable[[NodeReport], NDArray[np.int64]], Callable[[NodeReport], int]]]
#: The three states of memory: before, and compacted with unmovable and with movable pages.
STATES: States = {
    "before": ("before", lambda r: r.before, lambda r: r.obtained_before),
    "movable_off": ("movable off", lambda r: r.without, lambda r: r.obtained_without),
    "movable_on": ("movable on", lambda r: r.after, lambda r: r.obtained_after),
}
#: The states of memory without drivers.
WITHOUT_DRIVERS: States = {"before": STATES["before"], "movable_on": ("after", *STATES["movable_on"][1:])}


def obtained(reports: Iterable[NodeReport], states: States = STATES) -> dict[str, int]:
    """Return the blocks obtained, by state."""
    return {name: sum(map(count, reports)) for name, (_, _, count) in states.items()}


def available(reports: Sequence[NodeReport], order: int, states: States = STATES) -> dict[str, int]:
    """Return all blocks of this order in free memory, by state."""
    return {
        name: sum(blocks_of(blocks(report), order) for report in reports)
        for name, (_, blocks, _) in states.items()
    }


def free_blocks(reports: Sequence[NodeReport], states: States = STATES) -> dict[str, list[int]]:
    """Return free blocks by order, by state."""
    return {
        name: np.sum([blocks(r) for r in reports], axis=0).tolist() for name, (_, blocks, _) in states.items()
    }


def work(reports: Sequence[NodeReport]) -> dict[str, Any]:
    """Return the work: by_driver, bytes_moved within nodes and between them, contention, vmstat."""
    vmstat = {name: sum(r.vmstat[name] for r in reports) for name in reports[0].vmstat}
    by_driver = {name: _counts(reports, name) for name in reports[0].by_driver}
    moved, away = (
        PAGE_SIZE * sum(counts[which] for counts in by_driver.values()) for which in ("moved", "moved_away")
    )
    return {
        "by_driver": by_driver,
        "bytes_moved": moved,
        "bytes_moved_within": moved - away,
        "bytes_moved_between": away,
        "contention": {name: vmstat.pop(name) for name in CONTENTION},
        "vmstat": vmstat,
    }


def _counts(reports: Iterable[NodeReport], driver: str) -> dict[str, int]:
    counts = [report.by_driver[driver].as_dict() for report in reports]
    return {name: sum(c[name] for c in counts) for name in counts[0]}


def row(report: NodeReport, states: States = STATES) -> dict[str, int]:
    """Return a node's integers, by column of the table."""
    columns: dict[str, int] = {}
    for name, (_, blocks, obtained) in states.items():
        columns[f"obtained_{name}"] = obtained(report)
        columns |= {f"free_{name}_{order}": int(count) for order, count in enumerate(blocks(report))}
    for driver, counts in report.by_driver.items():
        columns |= {f"{driver}.{name}": count for name, count in counts.as_dict().items()}
    return columns | report.vmstat
