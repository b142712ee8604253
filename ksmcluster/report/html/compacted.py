"""The HTML report of an output of `compact`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.spec.content import PAGE_SIZE
from ksmcluster.config.compaction import CompactionScenario
from ksmcluster.report import text
from ksmcluster.report.compaction_words import state_words, who
from ksmcluster.report.html.sections import Facts, HtmlTable, Sections
from ksmcluster.report.html.states import blocks_table, drivers_table, relocations_table
from ksmcluster.report.run_data import RunData

LIMITS = (
    "The order of the kernel's free lists and its per-CPU lists are not modelled: an allocation gets the "
    "lowest of the smallest blocks.",
    "Reclaim, transparent huge pages, CMA areas and writeback are not modelled. An LRU page that is not "
    "unevictable always moves.",
    "Simulated time is the sum of assumed costs of scans, attempts and copies, in [migration.cost] of the "
    "configuration.",
)


def sections(run: RunData) -> Sections:
    """Return the report's sections about a run."""
    assert isinstance(run.config, CompactionScenario)
    summary = run.summary
    pages = ", with movable and with unmovable driver pages" if "movable_off" in summary["obtained"] else ""
    question = (
        f"How many large blocks of memory can be allocated after compaction{pages}, and what does that cost?"
    )
    asked = {
        "machine": f"{text.counted(summary['nodes'], 'node')} of "
        + text.size(run.config.machine.memory_per_node * PAGE_SIZE),
        "drivers": ", ".join(f"{text.one_line(driver)}" for driver in summary["by_driver"]),
        "kernel": summary["kernel"],
        "compaction": ", ".join(who(run.config.migration)),
        "requested": f"{summary['requested']:,} blocks of {_size(summary)} (order {summary['order']})",
        "seed": f"{summary['seed']}",
    }
    time = {"simulated time, slowest node": text.seconds(summary["simulated_seconds"])}
    tables = [
        _allocations(summary),
        blocks_table("Free blocks, all nodes", summary["free_blocks"]),
        drivers_table(summary["by_driver"]),
        *relocations_table(summary["relocations"]),
    ]
    return Sections(question, asked, answer(run), _found(summary), time, _cost(summary), tables, LIMITS)


def answer(run: RunData) -> str:
    """Return how many blocks can be allocated, in one sentence."""
    summary, got = run.summary, run.summary["obtained"]
    after = f"{got['movable_on']:,} of {summary['requested']:,} blocks of {_size(summary)} can be allocated"
    if "movable_off" in got:
        after += f" if driver pages are movable, and {got['movable_off']:,} if they are not"
    return f"After compaction, {after}; before compaction, {got['before']:,}."


def _size(summary: Mapping[str, Any]) -> str:
    return text.size(PAGE_SIZE << summary["order"])


def _found(summary: Mapping[str, Any]) -> Facts:
    got = summary["obtained"]
    return {f"blocks {head}": f"{got[state]:,}" for state, head in state_words(got).items()}


def _cost(summary: Mapping[str, Any]) -> Facts:
    counts: Sequence[Mapping[str, int]] = list(summary["by_driver"].values())
    return {
        "memory moved within nodes": text.size(summary["bytes_moved_within"]),
        "memory moved between nodes": text.size(summary["bytes_moved_between"]),
        "pages that failed to move": f"{sum(of_driver['failed'] for of_driver in counts):,}",
        "pages put back": f"{sum(of_driver['put_back'] for of_driver in counts):,}",
        "waits for page locks": f"{summary['contention']['lock_waits']:,}",
    }


def _allocations(summary: Mapping[str, Any]) -> HtmlTable:
    rows = [
        (head, f"{summary['obtained'][state]:,}", f"{summary['available'][state]:,}")
        for state, head in state_words(summary["obtained"]).items()
    ]
    title = f"Blocks of {_size(summary)}: {summary['requested']:,} requested"
    return HtmlTable(title, ("memory", "obtained", "available"), rows)
