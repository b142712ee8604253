"""What the migrate scanner will find in the next pageblocks, and what is foreseen of it."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.movable.predict_retries import MAX_PASSES, foresee
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode, isolatable, isolated
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    PAGEBLOCK_PAGES,
    PG_LOCKED,
    TAIL,
    PageMap,
)


class Ahead:
    """Pages of start..stop-1 that look movable, while nobody comes in between.

    found int64[n]: ascending, none of them locked. again int64[n]: attempts of each that answer -EAGAIN;
    None for none. stuck: some never move.
    """

    def __init__(self, pages: PageMap, start: int, stop: int, found: I64, again: I64) -> None:
        self.start = start
        self.stop = stop
        self.found = found
        self.again = again if np.count_nonzero(again) else None
        self.stuck = self.again is not None and bool((again >= MAX_PASSES).any())
        self._pages = pages
        self._first = start // PAGEBLOCK_PAGES
        ends = np.arange(self._first + 1, -(-stop // PAGEBLOCK_PAGES) + 1) * PAGEBLOCK_PAGES
        self._ends: list[int] = found.searchsorted(ends).tolist()
        self._tails = pages.order[start:stop] == TAIL
        self._isolated = isolated(pages, start, stop) > 0

    def end_of(self, pfn: int) -> int:
        """Where in `found` the pageblock of pfn ends."""
        return self._ends[pfn // PAGEBLOCK_PAGES - self._first]

    def batch(self, first: int, last: int) -> tuple[I64, I64 | None, bool]:
        """Pages found[first:last] in the order in which they are worked; `again` of them; `stuck`."""
        again = None if self.again is None else self.again[first:last][::-1]
        return self.found[first:last][::-1], again, self.stuck

    def scanned(self, start: int, stop: int, free_pfn: int) -> int:
        """As `steps`. free_pfn: the free scanner has been there, and merged free pages from there on."""
        low, high = start - self.start, stop - self.start
        if self._tails[low] or stop > free_pfn // MAX_BLOCK_PAGES * MAX_BLOCK_PAGES:
            return steps(self._pages, start, stop)
        return high - low - int(np.count_nonzero(self._tails[low:high]))

    def isolated(self, start: int, stop: int) -> int:
        """How many pages of start..stop-1 someone has isolated."""
        return isolated(self._pages, start, stop) if self._isolated else 0


def look_ahead(
    memory: Memory, start: int, stop: int, isolate_mode: IsolateMode, mode: MigrateMode
) -> Ahead | None:
    """From `start` up to `stop`, or to a pageblock before it; None: the first is not foreseen."""
    pages = memory.pages
    found = isolatable(pages, start, stop, isolate_mode)
    if len(found) == 0:
        return Ahead(pages, start, stop, found, found)
    if pages.any_flag(found, PG_LOCKED):
        first = int(found[pages.locked(found).argmax()]) // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
        return look_ahead(memory, start, first, isolate_mode, mode) if first > start else None
    again = foresee(memory, found, mode)
    if again is not None:
        return Ahead(pages, start, stop, found, again)
    end = (start // PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES
    return look_ahead(memory, start, end, isolate_mode, mode) if end < stop else None


def steps(pages: PageMap, start: int, stop: int) -> int:
    """Pages that the migrate scanner looks at: free blocks once each."""
    span = pages.order[start:stop]
    count = stop - start - int(np.count_nonzero(span == TAIL))
    if span[0] == TAIL:
        inside = span != TAIL
        count += int(np.argmax(inside)) if inside.any() else len(span)
    return count
