"""The compaction after each pass of a simulation: for summary.json, passes.parquet and the report.

docs/reference/results.md describes every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.compaction.movable.movable_frames import KSM_PAGES
from cluster.compaction.scenario.node_report import NodeReport, unusable_index
from cluster.machine.pass_result import PassResult
from cluster.spec.content import PAGE_SIZE
from cluster.wire.rmap_walks import joined_walks
from ksmcluster.config.migration import KsmMigrationConfig
from ksmcluster.results.compaction import relocations
from ksmcluster.results.compaction.node_reports import STATES, available, free_blocks, obtained, row, work


def summary(config: KsmMigrationConfig, nodes: int, passes: Sequence[PassResult]) -> dict[str, Any]:
    """Return the part `migration` of summary.json."""
    by_pass = [result.compaction for result in passes]
    seconds = [max(r.seconds for r in reports) for reports in by_pass]
    relocated = [done for result in passes for done in result.relocated]
    done = work([report for reports in by_pass for report in reports])
    between = PAGE_SIZE * sum(int(relocation.pages.sum()) for relocation in relocated)
    return {
        "kernel": config.kernel,
        "trigger": config.trigger,
        "order": config.order,
        "requested": config.attempts * nodes,
        **done,
        "bytes_moved": done["bytes_moved"] + between,
        "bytes_moved_between": between,
        "relocations": [relocations.summary(relocation) for relocation in relocated],
        "simulated_seconds": sum(seconds),
        "rmap_walks": _walks(config, passes),
        "by_pass": {
            "obtained": _by_state([obtained(reports) for reports in by_pass]),
            "available": _by_state([available(reports, config.order) for reports in by_pass]),
            "free_blocks": _by_state([free_blocks(reports) for reports in by_pass]),
            "unusable_free_index": _by_state([_unusable(reports, config.order) for reports in by_pass]),
            "pages_moved": [_moved(reports) for reports in by_pass],
            "ksm_pages_moved": [sum(r.by_driver[KSM_PAGES].moved for r in reports) for reports in by_pass],
            "simulated_seconds": seconds,
        },
    }


def _walks(config: KsmMigrationConfig, passes: Sequence[PassResult]) -> dict[str, float | None]:
    """Return the times of rmap walks of KSM frames, in compactions and relocations."""
    parts = [report.walks for result in passes for report in result.compaction]
    walks = joined_walks([*parts, *(done.walks for result in passes for done in result.relocated)])
    mean = walks.mappings / walks.number if walks.number else None
    seconds = config.cost.mapping_ns / 1e9
    return {
        **walks._asdict(),
        "mean": mean,
        "mean_seconds": None if mean is None else mean * seconds,
        "longest_seconds": walks.longest * seconds,
    }


def _moved(reports: Sequence[NodeReport]) -> int:
    return sum(counts.moved for report in reports for counts in report.by_driver.values())


def _by_state(passes: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [of_pass[name] for of_pass in passes] for name in STATES}


def _unusable(reports: Sequence[NodeReport], order: int) -> dict[str, int]:
    totals = free_blocks(reports)
    return {name: unusable_index(np.array(blocks), order) for name, blocks in totals.items()}


def columns(config: KsmMigrationConfig, passes: Sequence[PassResult]) -> dict[str, NDArray[np.int64]]:
    """Return columns of passes.parquet, with a row per pass and node."""
    rows = [
        {
            **row(report),
            **{
                f"unusable_free_index_{name}": unusable_index(blocks(report), config.order)
                for name, (_, blocks, _) in STATES.items()
            },
            "compaction_ns": round(report.seconds * 1e9),
        }
        for result in passes
        for report in result.compaction
    ]
    return {name: np.array([of_node[name] for of_node in rows], np.int64) for name in rows[0]}
