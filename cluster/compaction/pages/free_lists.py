"""The order of a zone's free lists (free_area[] in mm/page_alloc.c), and the per-cpu list before them.

Which blocks are free follows from the pages that are. In which order the lists hold them does not: it depends
on the history of every page. It matters to the searches of direct compaction alone, so a zone has `FreeLists`
from its first direct compaction on, or its first by kcompactd, which misses what is on the per-cpu list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, Array, Pfns
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
    """Doubly linked lists of the free blocks of a zone, by order and type; `PageMap.order` says which.

    A list begins and ends at its `anchor`. `counts`: blocks by order.
    """

    def __init__(self, pages: PageMap, start: int, end: int) -> None:
        self._pages = pages
        self.start = start
        self.end = end
        #: int32[pages and anchors], by page frame number: the next block in its list, and the one before.
        #: Single elements are quicker to read and write in their memoryviews.
        self.after, self.before = (np.zeros(end + (MAX_ORDER + 1) * _TYPES, np.int32) for _ in range(2))
        self.counts = [0] * (MAX_ORDER + 1)
        #: by anchor, a page that no block of the list is above
        self._bounds: list[int] = []
        self.fill()

    @staticmethod
    def anchor(order: int, migratetype: int) -> int:
        """Return what stands for the head and the tail of a list: an index from the end, below 0."""
        return -1 - (order * _TYPES + migratetype)

    def fill(self) -> None:
        """List all free blocks as if their pages had been freed from the lowest to the highest."""
        first, behind = self.start >> MAX_ORDER, -(-self.end // MAX_BLOCK_PAGES)
        order = self._pages.order.reshape(-1, MAX_BLOCK_PAGES)[first:behind]
        pfns = np.arange(first << MAX_ORDER, behind << MAX_ORDER, dtype=np.int32).reshape(order.shape)
        free = (order != USED) & (pfns >= self.start) & (pfns < self.end)
        bases = np.arange(first, behind) << MAX_ORDER
        _order, made = _merged(_levels(np.where(free, pfns, _NEVER)), bases)
        types = self._pages.pageblock_type[made.pfns >> PAGEBLOCK_ORDER]
        lists: list[tuple[int, int, I64]] = []
        for k in range(MAX_ORDER + 1):
            for kind in range(_TYPES):
                these = (made.orders == k) & (types == kind)
                at_head, at_tail = made.pfns[these & ~made.at_tail], made.pfns[these & made.at_tail]
                lists.append((k, kind, np.concatenate([at_head[::-1], at_tail])))
        self.set_lists(lists)

    def set_lists(self, lists: Iterable[tuple[int, int, I64]]) -> None:
        """Begin with these lists: order, type, and the blocks from the head of the list. int64[n]."""
        anchors = -1 - np.arange((MAX_ORDER + 1) * _TYPES)
        after, before = self.after, self.before
        after[anchors] = before[anchors] = anchors
        self.counts = [0] * (MAX_ORDER + 1)
        self._bounds = [-1] * len(anchors)
        for order, kind, blocks in lists:
            anchor = np.array([self.anchor(order, kind)])
            after[np.concatenate([anchor, blocks])] = np.concatenate([blocks, anchor])
            before[np.concatenate([blocks, anchor])] = np.concatenate([anchor, blocks])
            self.counts[order] += len(blocks)
            self._bounds[self.anchor(order, kind)] = int(blocks.max(initial=-1))

    def first(self, order: int, migratetype: int) -> int | None:
        """Return the block at the head of a list, if it has any."""
        pfn = int(self.after[self.anchor(order, migratetype)])
        return pfn if pfn >= 0 else None

    def bound(self, order: int, migratetype: int) -> int:
        """Return a page that no block of a list is above, not far from the highest one."""
        anchor = self.anchor(order, migratetype)
        bound = self._bounds[anchor]
        if bound >= 0 and self._pages.order[bound] != order:
            # the highest block is gone
            after = self.after.data
            block, bound = after[anchor], -1
            while block >= 0:
                bound = max(bound, block)
                block = after[block]
            self._bounds[anchor] = bound
        return bound

    def add(self, pfn: int, order: int, *, at_tail: bool = False) -> None:
        """Add a free block to the list of its order and its pageblock's type."""
        anchor = self.anchor(order, int(self._pages.pageblock_type[pfn >> PAGEBLOCK_ORDER]))
        after, before = self.after.data, self.before.data
        behind = before[anchor] if at_tail else anchor
        ahead = after[behind]
        after[behind] = before[ahead] = pfn
        after[pfn], before[pfn] = ahead, behind
        self.counts[order] += 1
        if pfn > self._bounds[anchor]:
            self._bounds[anchor] = pfn

    def remove(self, pfn: int, order: int) -> None:
        """Take a block from its list."""
        after, before = self.after.data, self.before.data
        ahead, behind = after[pfn], before[pfn]
        after[behind], before[ahead] = ahead, behind
        self.counts[order] -= 1

    def remove_all(self, heads: Pfns) -> None:
        for pfn, order in zip(heads.tolist(), self._pages.order[heads].tolist(), strict=True):
            self.remove(pfn, order)

    def cut(self, pfn: int, whole: int, order: int) -> None:
        """Take a block of order `whole` that is cut down to `order`; list its other parts (expand)."""
        self.remove(pfn, whole)
        for k in range(whole - 1, order - 1, -1):
            self.add(pfn + (1 << k), k)

    def relist(self, start: int) -> None:
        """Move the free blocks of a pageblock to the lists of its type, which has changed."""
        span = slice(start, start + PAGEBLOCK_PAGES)
        for place in (self._pages.order[span] >= 0).nonzero()[0].tolist():
            order = int(self._pages.order[start + place])
            self.remove(start + place, order)
            self.add(start + place, order, at_tail=True)

    def turn(self, anchor: int, first: int) -> None:
        """Turn a list round so that it begins with the block `first`."""
        after, before = self.after.data, self.before.data
        ahead, behind = after[anchor], before[anchor]
        if first in (anchor, ahead):
            return
        last = before[first]
        after[behind], before[ahead] = ahead, behind
        after[last], before[anchor] = anchor, last
        after[anchor], before[first] = first, anchor

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
        for pfn, k, tail in zip(made.pfns.tolist(), made.orders.tolist(), made.at_tail.tolist(), strict=True):
            self.add(pfn, k, at_tail=tail)
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


class PcpRules(NamedTuple):
    """The size of a per-cpu list (struct per_cpu_pages), in pages."""

    high: int
    batch: int
    #: A list that is full too often grows to at most so many pages; None: its size is fixed.
    most: int | None = None


class PerCpuList:
    """Pages freed lately that are not in the free lists yet, oldest first (struct per_cpu_pages).

    Each time it is full without an allocation in between, it gives up twice as many pages, all but `batch`.
    """

    def __init__(self, rules: PcpRules) -> None:
        self._rules = rules
        self._waiting: list[Pfns] = []
        self._high = rules.high
        self._doublings = 0
        self._freed = 0  #: pages freed since the last allocation, up to 32 batches
        self.count = 0

    def put(self, pfns: Pfns) -> list[Pfns]:
        """Add pages in their order; return those that leave the list, in groups."""
        leaving = []
        while (room := max(self._limit() - self.count, 1)) <= len(pfns):
            self._append(pfns[:room])
            pfns = pfns[room:]
            leaving.append(self.take(self._give_up()))
        if len(pfns):
            self._append(pfns)
        return leaving

    def _append(self, pfns: Pfns) -> None:
        self._waiting.append(pfns)
        self.count += len(pfns)
        self._freed = min(self._freed + len(pfns), self._rules.batch << 5)

    def _limit(self) -> int:
        return self._high

    def _give_up(self) -> int:
        """Return how many pages a full list gives up (nr_pcp_free)."""
        high, batch, most = self._rules.high, self._rules.batch, self._rules.most
        if most is None:
            wanted = batch << self._doublings
            self._doublings += wanted < high - batch
        else:
            high = self._high
            self._high = max(high, min(max(self._freed + batch, self._rules.high), most))
            wanted = self._freed
        return max(batch, min(wanted, high - batch))

    def take(self, count: int) -> Pfns:
        """Remove the oldest `count` pages and return them."""
        waiting = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = [waiting[count:]] if count < len(waiting) else []
        self.count -= min(count, len(waiting))
        return waiting[:count]

    def take_all(self) -> Pfns:
        return self.take(self.count) if self.count else np.zeros(0, np.int64)
