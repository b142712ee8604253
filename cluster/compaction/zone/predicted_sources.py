"""The pages that the migrate scanner will find in the next pageblocks, and how often each answers -EAGAIN."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.page_movable import isolatable, isolated
from cluster.compaction.movable.predict_retries import predict_retries
from cluster.compaction.movable.retry_passes import MAX_PASSES
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    MAX_ORDER,
    PAGEBLOCK_PAGES,
    TAIL,
    PageMap,
)
from cluster.compaction.zone.compact_control import Request


class PredictedSources:
    """Pages of start..stop-1 that look movable, valid as long as no other compactor makes a step.

    pfns int64[n]: ascending, none of them locked. eagain_counts int64[n]: attempts of each that answer
    -EAGAIN; None for none. some_stay: some pages use up all their attempts.
    """

    def __init__(
        self,
        pages: PageMap,
        start: int,
        stop: int,
        pfns: Pfns,
        eagain_counts: I64,
        rules: CompactionRules,
    ) -> None:
        self.start = start
        self.stop = stop
        self.pfns = pfns
        self.eagain_counts = eagain_counts if np.count_nonzero(eagain_counts) else None
        self.some_stay = self.eagain_counts is not None and bool((eagain_counts >= MAX_PASSES).any())
        self._pages = pages
        self._rules = rules
        self._first = start // PAGEBLOCK_PAGES
        ends = np.arange(self._first + 1, -(-stop // PAGEBLOCK_PAGES) + 1) * PAGEBLOCK_PAGES
        self._ends: list[int] = pfns.searchsorted(ends).tolist()
        self._tails = pages.order[start:stop] == TAIL
        self._isolated = isolated(pages, start, stop) > 0

    def end_of(self, pfn: int) -> int:
        """Return the index in `pfns` at which the pageblock of pfn ends."""
        return self._ends[pfn // PAGEBLOCK_PAGES - self._first]

    def batch(self, first: int, last: int) -> tuple[Pfns, I64 | None, bool]:
        """Return pfns[first:last] in the order of their migration, their `eagain_counts`, and `some_stay`."""
        eagain_counts = None if self.eagain_counts is None else self.eagain_counts[first:last][::-1]
        return self.pfns[first:last][::-1], eagain_counts, self.some_stay

    def scanned(self, start: int, stop: int, free_pfn: int) -> int:
        """Return the same as `scan_count`. free_pfn: the free scanner has merged free pages from there on."""
        low, high = start - self.start, stop - self.start
        merged = stop > free_pfn // MAX_BLOCK_PAGES * MAX_BLOCK_PAGES
        if self._rules.counts_every_page or merged or self._tails[low]:
            return scan_count(self._pages, start, stop, self._rules)
        passed_over = self._pages.huge_pages(start, stop) * (PAGEBLOCK_PAGES - 1)
        return high - low - int(np.count_nonzero(self._tails[low:high])) - passed_over

    def isolated(self, start: int, stop: int) -> int:
        """Return how many pages of start..stop-1 are isolated."""
        return isolated(self._pages, start, stop) if self._isolated else 0


def predict_sources(
    memory: Memory, start: int, stop: int, request: Request, rules: CompactionRules
) -> PredictedSources | None:
    """Predict from `start` up to `stop`, or to a pageblock before it; None: the first cannot be predicted."""
    pages = memory.pages
    found = isolatable(pages, start, stop, request.isolate_mode)
    if len(found) == 0:
        return PredictedSources(pages, start, stop, found, found, rules)
    if pages.any_locked(found):
        first = int(found[pages.locked(found).argmax()]) // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
        return predict_sources(memory, start, first, request, rules) if first > start else None
    eagain_counts = predict_retries(memory, found, request.mode, rules)
    if eagain_counts is not None:
        return PredictedSources(pages, start, stop, found, eagain_counts, rules)
    end = (start // PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES
    return predict_sources(memory, start, end, request, rules) if end < stop else None


def scan_count(pages: PageMap, start: int, stop: int, rules: CompactionRules) -> int:
    """Return how many of start..stop-1, pages of one pageblock, the migrate scanner counts.

    It counts one page a free block or huge page. With `counts_every_page`, it passes over a huge page
    without counting it, and counts a free block of two pageblocks as a whole in the first one.
    """
    if rules.counts_every_page:
        if pages.huge_pages(start, stop):
            return 0
        return stop - start + (PAGEBLOCK_PAGES if pages.order[start] == MAX_ORDER else 0)
    span = pages.order[start:stop]
    count = stop - start - int(np.count_nonzero(span == TAIL))
    count -= pages.huge_pages(start, stop) * (PAGEBLOCK_PAGES - 1)
    if span[0] == TAIL:
        inside = span != TAIL
        count += int(np.argmax(inside)) if inside.any() else len(span)
    return count
