"""The cost of KSM in huge pages: for summary.json, the notes and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from cluster.arrays.words import HUGE_SIZE
from cluster.machine.census import Census
from cluster.spec.content import PAGE_SIZE
from cluster.spec.statistics import Statistic
from ksmcluster.report import text

#: The keys of `huge_pages` in summary.json.
HUGE_PAGES = (
    Statistic("before", "huge pages", "at the start; each counts once, even if several processes map it"),
    Statistic("after", "huge pages", "still mapped whole by a process after the last pass"),
    Statistic("split", "huge pages", "split by ksmd: thp_split_page minus split_to_move"),
    Statistic(
        "split_to_move",
        "huge pages",
        "split by relocations because no node had room for them as a whole; only with [migration]",
    ),
    Statistic("fallback", "huge pages", "replaced by small pages at the start, as no node had a free one"),
    Statistic("saved_bytes_per_split", "bytes", "saved_bytes / split; null if none was split"),
)


def summary(
    counters: Mapping[str, int], census: Census, saved_bytes: int
) -> dict[str, dict[str, int | None]]:
    """Return the part `huge_pages` of summary.json; empty if the scenario has no huge pages."""
    before, fallback = counters["thp_fault_alloc"], census.huge_fallback
    if not before and not fallback:
        return {}
    split = counters["thp_split_page"] - census.huge_split_to_move
    per_split = saved_bytes // split if split else None
    found = before, census.huge_pages, split, census.huge_split_to_move, fallback, per_split
    return {"huge_pages": {s.name: value for s, value in zip(HUGE_PAGES, found, strict=True)}}


def notes(found: Mapping[str, int | None]) -> Iterator[str]:
    """Yield notes on split or missing huge pages; `found` is `huge_pages` of the summary, or empty."""
    if fallback := found.get("fallback"):
        yield (
            f"{text.counted(fallback, 'huge page')} of the scenario could not be allocated, because no free "
            "block had 2 MiB; small pages replace them"
        )
    if split := found.get("split"):
        yield (
            f"ksmd split {text.counted(split, 'huge page')} for good: the model has no khugepaged, but a "
            "real one may collapse unmerged memory into huge pages again; the slowdown of programs is not "
            "included in the numbers"
        )


def report(found: Mapping[str, int | None]) -> Table:
    """Return the section of the report."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for name in ("before", "after", "split", "split_to_move", "fallback"):
        count = found.get(name) or 0
        if count or name not in ("split_to_move", "fallback"):
            size = text.size(count * HUGE_SIZE * PAGE_SIZE)
            grid.add_row(f"  {name.replace('_', ' ')}", f"{count:,}", size)
    if (per_split := found["saved_bytes_per_split"]) is not None:
        grid.add_row("  saved per split", "", text.size(per_split))
    return grid
