"""The free pages of some pageblocks at one moment, for the free scanner."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, TAIL, USED


class FreePages:
    """Free pages of pages low..high-1 in the order of the scanner: the top pageblock first, upwards inside.

    order int8[pages]: merged. suitable bool[pageblocks]: the scanner takes pages from it.
    """

    def __init__(
        self, order: np.ndarray[Any, np.dtype[np.int8]], low: int, high: int, suitable: Bool
    ) -> None:
        self.low = low
        self._high = high
        orders = order[low:high].reshape(-1, PAGEBLOCK_PAGES)[::-1].ravel()
        at = (orders != USED).nonzero()[0]
        bounds = at.searchsorted(np.arange(0, high - low + 1, PAGEBLOCK_PAGES))
        self._bounds: list[int] = bounds.tolist()
        self._heads = (orders[at] != TAIL).tobytes()
        self._pfns: I64 = high - PAGEBLOCK_PAGES - at + 2 * (at % PAGEBLOCK_PAGES)
        suitable = suitable[::-1]
        barren = bounds[1:] == bounds[:-1]
        self._runs = _runs(suitable & ~barren & (orders[::PAGEBLOCK_PAGES] != TAIL))
        self._barren = _runs(suitable & barren)
        # where the last `take` stopped: pfn, index
        self._stopped = (high, 0)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the indices of the first free page of start..end-1 and behind the last, in one pageblock."""
        place = self._place(start)
        first, last = self._first(start, place), self._bounds[place + 1]
        if end % PAGEBLOCK_PAGES:
            last = first + int(self._pfns[first:last].searchsorted(end))
        return first, last

    def take(self, first: int, last: int, wanted: int) -> I64:
        """Return whole free blocks of a span that has any, until there are `wanted` pages. int64[n]."""
        if last - first > wanted:
            head = self._heads.find(1, first + wanted, last)
            last = last if head < 0 else head
        self._stopped = (int(self._pfns[last - 1]) + 1, last)
        return self._pfns[first:last]

    def take_run(self, start: int, lowest: int, wanted: int) -> tuple[I64, int, int] | None:
        """Return the same from `start` and the next pageblocks, down to `lowest`, as long as each has some.

        Returns also the pageblock in which it stopped, and the pfn there. None: the first has no free page.
        """
        place = self._place(start)
        first, behind = self._first(start, place), min(self._runs[place], self._place(lowest) + 1)
        if behind <= place or first == self._bounds[place + 1]:
            return None
        taken = self.take(first, self._bounds[behind], wanted)
        last = first + len(taken)
        bottom = self._high - bisect_left(self._bounds, last, place + 1) * PAGEBLOCK_PAGES
        return taken, bottom, self._stopped[0] if len(taken) >= wanted else bottom + PAGEBLOCK_PAGES

    def barren(self, start: int, lowest: int) -> int:
        """Return how many suitable pageblocks from that of `start` down to `lowest` have no free pages."""
        place = self._place(start)
        return min(self._barren[place], self._place(lowest) + 1) - place

    def _place(self, pfn: int) -> int:
        """Return the index of the pageblock of pfn, counted from the top."""
        return (self._high - 1 - pfn) >> PAGEBLOCK_ORDER

    def _first(self, start: int, place: int) -> int:
        """Return the index of the first free page from `start` on."""
        if start == self._stopped[0]:
            return self._stopped[1]
        first, last = self._bounds[place], self._bounds[place + 1]
        return first + int(self._pfns[first:last].searchsorted(start)) if start % PAGEBLOCK_PAGES else first


def _runs(flags: Bool) -> list[int]:
    """Return for each pageblock the first one from it on without the flag."""
    runs, end = [], len(flags)
    for place, flag in zip(range(len(flags) - 1, -1, -1), flags[::-1].tolist(), strict=True):
        end = end if flag else place
        runs.append(end)
    return runs[::-1]
