"""Lists of pages in an order of their own, in arrays: many pages join, leave or pass by in one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.arrays.words import I32, I64

#: In place of a page that has left its list, until others move.
_GONE = np.int32(-1)
#: The least free places before and behind a list.
_SPARE = 32


class OrderedLists:
    """A number of lists; a page is in one of them at most.

    All lists lie in one array, each with free places before and behind it.
    """

    def __init__(self, lists: int, pages: int) -> None:
        #: by list: how many pages it has
        self.counts = [0] * lists
        self._items = np.full(0, _GONE)
        #: by list: its places [low, high), of those from `start` up to the `start` of the next list
        self._low, self._high = [0] * lists, [0] * lists
        self._start = [0] * (lists + 1)
        #: int32[pages], int8[pages]: place and list, of pages that are in a list
        self._place = np.zeros(pages, np.int32)
        self._list = np.zeros(pages, np.int8)

    def fill(self, lists: Sequence[I64]) -> None:
        """Begin with these pages, from the head of each list to its tail."""
        self._lay_out([pages.astype(np.int32) for pages in lists])
        for number, pages in enumerate(lists):
            self._list[pages] = number

    def pages(self, number: int) -> I32:
        """Return the pages of a list from its head to its tail. int32[n]"""
        return self._left(self._low[number], self._high[number])

    def head(self, number: int, most: int) -> I32:
        """Return the first pages of a list, `most` at most. int32[n]"""
        low, high = self._low[number], self._high[number]
        span = most
        while True:
            part = self._left(low, min(low + span, high))
            if len(part) >= most or low + span >= high:
                return part[:most]
            span *= 2

    def tail(self, number: int, most: int) -> I32:
        """Return the last pages of a list, `most` at most; the last one comes first. int32[n]"""
        low, high = self._low[number], self._high[number]
        span = most
        while True:
            part = self._left(max(high - span, low), high)
            if len(part) >= most or high - span <= low:
                return part[::-1][:most]
            span *= 2

    def join_head(self, number: int, pages: I64) -> None:
        """Add pages at the head of a list one after the other, so that the last one is the first then."""
        self._list[pages] = number
        self._put_before(number, pages[::-1])
        self.counts[number] += len(pages)

    def join_tail(self, number: int, pages: I64) -> None:
        """Add pages at the tail of a list one after the other."""
        self._list[pages] = number
        self._put_behind(number, pages)
        self.counts[number] += len(pages)

    def leave(self, pages: I64 | I32) -> None:
        """Remove pages from the lists that they are in."""
        self._items[self._place[pages]] = _GONE
        for number, count in enumerate(np.bincount(self._list[pages]).tolist()):
            self.counts[number] -= count

    def turn(self, number: int, first: int) -> None:
        """Turn a list round so that it begins with the page `first`."""
        low, high = self._low[number], self._high[number]
        place = self._place.data[first]
        if place - low > high - place:
            self._make_room(number, before=high - place)
            place, high = self._place.data[first], self._high[number]
            self._high[number] = place
            self._put_before(number, self._left(place, high))
        elif place > low:
            self._make_room(number, behind=place - low)
            place, low = self._place.data[first], self._low[number]
            self._low[number] = place
            self._put_behind(number, self._left(low, place))

    def _left(self, low: int, high: int) -> I32:
        """Return the pages in the places [low, high), in their order. int32[n]"""
        part = self._items[low:high]
        left: I32 = part[(part != _GONE).nonzero()[0]]
        return left

    def _put_before(self, number: int, pages: I64 | I32) -> None:
        self._make_room(number, before=len(pages))
        low = self._low[number] = self._low[number] - len(pages)
        self._put(low, pages)

    def _put_behind(self, number: int, pages: I64 | I32) -> None:
        self._make_room(number, behind=len(pages))
        self._high[number] = self._put(self._high[number], pages)

    def _put(self, low: int, pages: I64 | I32) -> int:
        """Put pages into the places from `low` on, and return the place behind them."""
        high = low + len(pages)
        self._items[low:high] = pages
        self._place[pages] = np.arange(low, high, dtype=np.int32)
        return high

    def _make_room(self, number: int, before: int = 0, behind: int = 0) -> None:
        """Make sure that a list has `before` free places before it and `behind` free places behind it."""
        start, stop = self._start[number : number + 2]
        if self._low[number] - before >= start and self._high[number] + behind <= stop:
            return
        pages = self.pages(number)
        free = stop - start - len(pages)
        if free < max(2 * (before + behind), len(pages) // 4):
            lists = [self.pages(other) for other in range(len(self.counts))]
            self._lay_out(lists, number, before + behind)
            return
        self._low[number] = start + free // 2
        self._high[number] = self._put(self._low[number], pages)

    def _lay_out(self, lists: Sequence[I32], number: int = 0, more: int = 0) -> None:
        """Lay out all lists anew; list `number` gets `more` additional free places at each end."""
        room = [len(pages) // 2 + _SPARE for pages in lists]
        room[number] += more
        sizes = [len(pages) + 2 * free for pages, free in zip(lists, room, strict=True)]
        self._start = [0, *np.cumsum(sizes).tolist()]
        self._items = np.full(self._start[-1], _GONE)
        self._low = [start + free for start, free in zip(self._start[:-1], room, strict=True)]
        self._high = [self._put(low, pages) for low, pages in zip(self._low, lists, strict=True)]
        self.counts = [len(pages) for pages in lists]
