"""Notes on the limits of a capture. They are stored in its snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.spec.captured_pages import LATE
from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.tracing.tracked import Skipped
from ksmcluster.capture.tracing.writes import Pauses
from ksmcluster.snapshot import HostInfo, Note, SnapshotProcess

_MOSTLY = 0.5
"""Share of the pages from which a note speaks of most pages."""


@dataclass(slots=True)
class Counts:
    """Counts of the first moment's pages, for the notes."""

    pages: int = 0
    shared: int = 0
    """Mapped by more than one page table entry, as far as is known."""
    outside: int = 0
    """Mapped by processes that are not captured."""
    frames_known: bool = True


def notes(
    processes: Sequence[SnapshotProcess],
    host: HostInfo | None,
    counts: Counts,
    moments: Sequence[float],
    asked_interval: float,
    tracking: str | None,
) -> Iterator[Note]:
    """Yield notes on the limits of the capture, each with its effect on the result."""
    if host is not None:
        yield from _of_the_host(host, processes)
    if not counts.frames_known and counts.shared:
        size = _mib(counts.shared)
        yield Note(
            "frames",
            f"only root with CAP_SYS_ADMIN can see which of {counts.shared:,} pages share frames since a "
            f"fork: savings may be up to {size} too high; capture as root",
        )
    elif counts.pages and counts.shared > _MOSTLY * counts.pages:
        share = counts.shared / counts.pages
        yield Note(
            "fork",
            f"{share:.0%} of the pages share frames since a fork, which saves memory without KSM; KSM gains "
            "nothing from them until they are written",
        )
    if counts.outside:
        yield Note(
            "outside",
            f"{counts.outside:,} pages are also mapped by processes that were not captured: their frames "
            "stay in use whatever ksmd does; capture all processes of the job (--pid-tree)",
        )
    pinned = sum(process.pinned_pages or 0 for process in processes)
    if pinned:
        yield Note(
            "pinned",
            f"{pinned:,} pages ({_mib(pinned)}) are pinned and never merge; which ones cannot be seen, so "
            "the simulation spreads them evenly over the pages of their processes",
        )
    if host is not None:
        yield from _of_the_moments(moments, asked_interval, tracking)


def _of_the_host(host: HostInfo, processes: Sequence[SnapshotProcess]) -> Iterator[Note]:
    merged = sum((process.ksm_stat or {}).get("ksm_merging_pages", 0) for process in processes)
    if merged:
        yield Note(
            "merged",
            f"ksmd had merged {merged:,} pages when they were captured; the simulation begins with them "
            "unmerged",
        )
    zeros = sum((process.ksm_stat or {}).get("ksm_zero_pages", 0) for process in processes)
    if zeros:
        yield Note(
            "zero-pages",
            f"ksmd had mapped {zeros:,} pages to the shared zero page; which of the zero-mapped pages they "
            "are cannot be seen, so they are drawn",
        )
    if any(mapping.thp_eligible for process in processes for mapping in process.mappings):
        yield Note(
            "khugepaged",
            "khugepaged may collapse this memory into new huge pages, which the simulation does not model",
        )


def _of_the_moments(moments: Sequence[float], interval: float, tracking: str | None) -> Iterator[Note]:
    if len(moments) == 1:
        yield Note(
            "one-moment",
            "one moment only: memory never changes, so fewer pages are volatile than in the running program",
        )
        return
    longest = max(later - earlier for earlier, later in pairwise(moments))
    if longest > interval * (1 + LATE):
        meaning = "writes between them count once"
        if tracking is not None:
            meaning = (
                f"pages written before and after such a gap count as written in every {interval:g} s of it"
            )
        yield Note(
            "interval",
            f"the interval of {interval:g} s could not be kept: up to {longest:.2f} s passed between two "
            f"moments; {meaning}",
        )
    if tracking is None:
        yield Note(
            "writes",
            "writes that do not change a page's bytes are unknown, so sharing that they break seems to "
            "last; track them (--track-writes) or give `write` rates in a scenario",
        )


def tracking_notes(pauses: Pauses, skipped: Sequence[Skipped]) -> Iterator[Note]:
    """Yield notes on how tracking disturbed the processes, and on memory that it could not track."""
    if pauses.stops:
        yield Note(
            "pauses",
            f"to track writes, threads were stopped for up to {pauses.longest_ms:.1f} ms at a time and "
            f"{pauses.total_ms:.1f} ms in total; the first write to a page after each moment took an extra "
            "page fault",
        )
    for of_reason in sorted({skip.reason for skip in skipped}):
        count = sum(skip.reason == of_reason for skip in skipped)
        yield Note(
            "untracked",
            f"writes to {count:,} mappings or processes were not tracked ({of_reason}): only writes that "
            "changed their bytes are known",
        )


def _mib(pages: int) -> str:
    return f"{pages * PAGE_SIZE / 2**20:,.1f} MiB"
