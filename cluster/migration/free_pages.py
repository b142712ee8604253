"""The free pages of some pageblocks at one moment, for the free scanner."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.migration.pages import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, TAIL, USED
from cluster.words import I64


class FreePages:
    """Of pageblocks low..high-1. order int8[pages]: merged."""

    def __init__(self, order: np.ndarray[Any, np.dtype[np.int8]], low: int, high: int) -> None:
        self.low = low
        orders = order[low:high]
        at = (orders != USED).nonzero()[0]
        edges = np.arange(0, high - low + 1, PAGEBLOCK_PAGES)
        self._bounds: list[int] = at.searchsorted(edges).tolist()
        self._heads = (orders[at] != TAIL).tobytes()
        self._pfns: I64 = at + low
        # where the last one stopped: pfn, index
        self._stopped = (low, 0)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where those of start..end-1, in one pageblock, begin and end."""
        place = (start - self.low) >> PAGEBLOCK_ORDER
        first, last = self._bounds[place], self._bounds[place + 1]
        if start == self._stopped[0]:
            first = self._stopped[1]
        elif start % PAGEBLOCK_PAGES:
            first += int(self._pfns[first:last].searchsorted(start))
        if end % PAGEBLOCK_PAGES:
            last = first + int(self._pfns[first:last].searchsorted(end))
        return first, last

    def take(self, first: int, last: int, wanted: int) -> I64:
        """Of a span with any, whole free blocks until there are enough. int64[n]."""
        if last - first > wanted:
            head = self._heads.find(1, first + wanted, last)
            last = last if head < 0 else head
        self._stopped = (int(self._pfns[last - 1]) + 1, last)
        return self._pfns[first:last]
