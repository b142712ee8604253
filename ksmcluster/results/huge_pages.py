"""What KSM costs in huge pages: for summary.json, the notes and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from cluster.arrays.words import HUGE_SIZE
from cluster.machine.census import Census
from cluster.spec.content import PAGE_SIZE
from cluster.spec.statistics import Statistic
from ksmcluster.report import text

#: Of `huge_pages` in summary.json.
HUGE_PAGES = (
    Statistic("before", "huge pages", "at the start, each once, however many processes map it"),
    Statistic("after", "huge pages", "that a process still maps whole after the last pass"),
    Statistic("split", "huge pages", "that ksmd split: thp_split_page"),
    Statistic("saved_bytes_per_split", "bytes", "saved_bytes / split; null without any"),
)


def summary(
    counters: Mapping[str, int], census: Census, saved_bytes: int
) -> dict[str, dict[str, int | None]]:
    """The part `huge_pages` of summary.json; nothing if there was no huge page."""
    before, split = counters["thp_fault_alloc"], counters["thp_split_page"]
    if not before:
        return {}
    per_split = saved_bytes // split if split else None
    found = before, census.huge_pages, split, per_split
    return {"huge_pages": {s.name: value for s, value in zip(HUGE_PAGES, found, strict=True)}}


def notes(counters: Mapping[str, int]) -> Iterator[str]:
    """What to know if huge pages were split."""
    if split := counters["thp_split_page"]:
        yield (
            f"ksmd split {text.counted(split, 'huge page')} for good: khugepaged sleeps in the model, while "
            "a real one may make huge pages again of what is not merged; what programs lose in speed is not "
            "in the numbers"
        )


def report(found: Mapping[str, int | None]) -> Table:
    """The section of the report."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=20)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for name in ("before", "after", "split"):
        count = found[name] or 0
        grid.add_row(f"  {name}", f"{count:,}", text.size(count * HUGE_SIZE * PAGE_SIZE))
    if (per_split := found["saved_bytes_per_split"]) is not None:
        grid.add_row("  saved per split", "", text.size(per_split))
    return grid
