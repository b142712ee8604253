"""The order of a zone's free lists (free_area[] in mm/page_alloc.c).

Which blocks are free follows from the pages that are. In which order the lists hold them does not: it depends
on the history of every page. It matters to the searches of direct compaction alone, so a zone has `FreeLists`
from its first direct compaction on, or its first by kcompactd, which misses what is on the per-cpu list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, Array, Pfns
from cluster.compaction.pages.ordered_lists import OrderedLists
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    MAX_ORDER,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    TAIL,
    USED,
    MigrateType,
    PageMap,
)

_NEVER = np.int32(1 << 30)  #: the time at which a used page is freed
_BEFORE = np.int32(-1)  #: the time at which a page was freed that is free already
_TYPES = len(MigrateType)
#: Largest order whose blocks may go to the tail of a list.
_LARGEST_AT_TAIL = MAX_ORDER - 2


class NewBlocks(NamedTuple):
    """Blocks that become free, in the order in which they do. int64[n], int64[n], bool[n]."""

    pfns: I64
    orders: I64
    at_tail: Array


class FreeLists:
    """The free blocks of a zone in lists, by order and type; `PageMap.order` says which are free."""

    def __init__(self, pages: PageMap, start: int, end: int) -> None:
        self._pages = pages
        self.start = start
        self.end = end
        #: by `number`
        self.lists = OrderedLists((MAX_ORDER + 1) * _TYPES, end)
        #: by `number`, a page that no block of the list is above
        self._bounds: list[int] = []
        self.fill()

    @staticmethod
    def number(order: int, migratetype: int) -> int:
        """Return the number of a list in `lists`."""
        return order * _TYPES + migratetype

    @property
    def counts(self) -> list[int]:
        """The number of free blocks by order."""
        counts = self.lists.counts
        return [sum(counts[low : low + _TYPES]) for low in range(0, len(counts), _TYPES)]

    def fill(self) -> None:
        """List all free blocks as if their pages had been freed from the lowest to the highest."""
        first, behind = self.start >> MAX_ORDER, -(-self.end // MAX_BLOCK_PAGES)
        order = self._pages.order.reshape(-1, MAX_BLOCK_PAGES)[first:behind]
        pfns = np.arange(first << MAX_ORDER, behind << MAX_ORDER, dtype=np.int32).reshape(order.shape)
        free = (order != USED) & (pfns >= self.start) & (pfns < self.end)
        bases = np.arange(first, behind) << MAX_ORDER
        _order, made = _merged(_levels(np.where(free, pfns, _NEVER)), bases)
        self.set_lists([])
        self._add_all(made)

    def set_lists(self, lists: Iterable[tuple[int, int, I64]]) -> None:
        """Begin with these lists: order, type, and the blocks from the head of the list. int64[n]."""
        of_number = [np.zeros(0, np.int64)] * len(self.lists.counts)
        for order, kind, blocks in lists:
            of_number[self.number(order, kind)] = blocks
        self.lists.fill(of_number)
        self._bounds = [int(blocks.max(initial=-1)) for blocks in of_number]

    def first(self, order: int, migratetype: int) -> int | None:
        """Return the block at the head of a list, if it has any."""
        number = self.number(order, migratetype)
        return int(self.lists.head(number, 1)[0]) if self.lists.counts[number] else None

    def bound(self, order: int, migratetype: int) -> int:
        """Return a page that no block of a list is above, not far from the highest one."""
        number = self.number(order, migratetype)
        bound = self._bounds[number]
        if bound >= 0 and self._pages.order[bound] != order:
            # the highest block is gone
            bound = self._bounds[number] = int(self.lists.pages(number).max(initial=-1))
        return bound

    def _add_all(self, blocks: NewBlocks) -> None:
        """Add free blocks one after the other to the lists of their orders and their pageblocks' types."""
        numbers = blocks.orders * _TYPES + self._pages.pageblock_type[blocks.pfns >> PAGEBLOCK_ORDER]
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            of_list = numbers == number
            self.lists.join_head(number, blocks.pfns[of_list & ~blocks.at_tail])
            self.lists.join_tail(number, blocks.pfns[of_list & blocks.at_tail])
            self._bounds[number] = max(self._bounds[number], int(blocks.pfns[of_list].max()))

    def remove_all(self, heads: Pfns) -> None:
        """Take blocks from their lists."""
        self.lists.leave(heads)

    def cut(self, pfn: int, whole: int, order: int) -> None:
        """Take a block of order `whole` that is cut down to `order`; list its other parts (expand)."""
        self.remove_all(np.array([pfn]))
        orders = np.arange(whole - 1, order - 1, -1)
        self._add_all(NewBlocks(pfn + (1 << orders), orders, np.zeros(len(orders), np.bool_)))

    def relist(self, start: int) -> None:
        """Move the free blocks of a pageblock to the lists of its type, which has changed."""
        order = self._pages.order[start : start + PAGEBLOCK_PAGES]
        places = (order >= 0).nonzero()[0]
        self.remove_all(start + places)
        at_tail = np.ones(len(places), np.bool_)
        self._add_all(NewBlocks(start + places, order[places].astype(np.int64), at_tail))

    def release(self, pfns: Pfns, capture: int | None = None) -> int | None:
        """Free pages one after the other: merge them, and list the new blocks.

        capture: the first block of this order that comes into being is not listed; it is returned, and its
        pages are not free.
        """
        blocks = np.unique(pfns >> MAX_ORDER)
        rows = self._pages.order.reshape(-1, MAX_BLOCK_PAGES)
        old = rows[blocks]
        times = np.where(old == USED, _NEVER, _BEFORE)
        which = np.searchsorted(blocks, pfns >> MAX_ORDER)
        times[which, pfns & (MAX_BLOCK_PAGES - 1)] = np.arange(len(pfns))
        levels = _levels(times)
        captured = None
        if capture is not None and (found := _first_complete(levels[capture])) is not None:
            row, place = found
            captured = (int(blocks[row]) << MAX_ORDER) + (place << capture)
            times[row, place << capture : (place + 1) << capture] = _NEVER
            levels = _levels(times)
        order, made = _merged(levels, blocks << MAX_ORDER)
        gone = ((old >= 0) & (order != old)).nonzero()
        self.remove_all((blocks[gone[0]] << MAX_ORDER) + gone[1])
        rows[blocks] = order
        self._add_all(made)
        return captured


def _levels(times: Array) -> list[Array]:
    """Return when each aligned block is complete, by order. int32[n, 1024] -> int32[n, 1024 >> order]."""
    levels = [times]
    for _ in range(MAX_ORDER):
        below = levels[-1]
        levels.append(np.maximum(below[:, 0::2], below[:, 1::2]))
    return levels


def _first_complete(times: Array) -> tuple[int, int] | None:
    """Return row and column of the block that is complete first, of those that were not before."""
    waiting = np.where(times == _BEFORE, _NEVER, times)
    at = int(waiting.argmin())
    return divmod(at, times.shape[1]) if waiting.flat[at] < _NEVER else None


def _merged(levels: list[Array], bases: I64) -> tuple[Array, NewBlocks]:
    """Return `PageMap.order` once all pages are freed, and the blocks that are new in it."""
    order = np.where(levels[0] < _NEVER, np.int8(TAIL), np.int8(USED))
    times, pfns, orders, tails = [], [], [], []
    for k, level in enumerate(levels):
        heads = level < _NEVER
        if k < MAX_ORDER:
            heads &= np.repeat(levels[k + 1] == _NEVER, 2, axis=1)
        order[:, :: 1 << k][heads] = k
        row, place = (heads & (level > _BEFORE)).nonzero()
        if len(row) == 0:
            continue
        time = level[row, place]
        times.append(time)
        pfns.append(bases[row] + (place << k))
        orders.append(np.full(len(row), k))
        if k <= _LARGEST_AT_TAIL:
            # the block will soon merge with a free one next to the block of twice its size
            tails.append(levels[k + 1][row, (place >> 1) ^ 1] <= time)
        else:
            tails.append(np.zeros(len(row), np.bool_))
    if not times:
        return order, NewBlocks(bases[:0], bases[:0], np.zeros(0, np.bool_))
    by_time = np.concatenate(times).argsort(kind="stable")
    return order, NewBlocks(
        np.concatenate(pfns)[by_time], np.concatenate(orders)[by_time], np.concatenate(tails)[by_time]
    )
