"""Tables of compaction by state of memory: before, and after with movable and with unmovable pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.spec.content import PAGE_SIZE
from ksmcluster.report import text
from ksmcluster.report.compaction_words import COUNTS, STATE_WORDS, state_words
from ksmcluster.report.html.sections import HtmlTable
from ksmcluster.report.run_data import RunData


def blocks_table(title: str, free_blocks: Mapping[str, Sequence[int]]) -> HtmlTable:
    """Return a table of free blocks by order."""
    words = state_words(free_blocks)
    rows = [
        (f"{order}", text.size(PAGE_SIZE << order), *(f"{count:,}" for count in counts))
        for order, counts in enumerate(zip(*(free_blocks[state] for state in words), strict=True))
    ]
    return HtmlTable(title, ("order", "size", *words.values()), rows)


def drivers_table(by_driver: Mapping[str, Mapping[str, int]]) -> HtmlTable:
    """Return a table of the pages of each driver."""
    rows = [
        (text.one_line(driver), *(f"{counts[name]:,}" for name in COUNTS))
        for driver, counts in by_driver.items()
    ]
    return HtmlTable("Pages by driver", ("driver", *COUNTS.values()), rows)


def relocations_table(relocations: Sequence[Mapping[str, Any]]) -> list[HtmlTable]:
    """Return a table of the moves between nodes, if there are any."""
    rows = [
        (
            f"{number} ({done['kind']})",
            text.size(done["bytes"]),
            text.seconds(done["simulated_seconds"]),
            ", ".join(f"{node['node']}" for node in done["drained"]) or "none",
        )
        for number, done in enumerate(relocations, 1)
    ]
    return (
        [HtmlTable("Moved between nodes", ("move", "memory", "time", "nodes to drain"), rows)] if rows else []
    )


def migration_tables(run: RunData) -> list[HtmlTable]:
    """Return tables of the compaction after each pass of a simulation, if there was any."""
    if (migration := run.summary.get("migration")) is None:
        return []
    by_pass = migration["by_pass"]
    columns = [by_pass["obtained"][state] for state in STATE_WORDS] + [by_pass["pages_moved"]]
    rows = [
        (f"{number}", *(f"{cell:,}" for cell in cells))
        for number, cells in enumerate(zip(*columns, strict=True), 1)
    ]
    size = text.size(PAGE_SIZE << migration["order"])
    title = f"Compaction after each pass: blocks of {size} obtained, of {migration['requested']:,} requested"
    last = {state: by_pass["free_blocks"][state][-1] for state in STATE_WORDS}
    return [
        HtmlTable(title, ("pass", *STATE_WORDS.values(), "pages moved"), rows),
        blocks_table("Free blocks after the last pass", last),
        drivers_table(migration["by_driver"]),
        *relocations_table(migration["relocations"]),
    ]
