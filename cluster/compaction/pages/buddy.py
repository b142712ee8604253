"""The free memory of a zone (mm/page_alloc.c): blocks of 2^0 to 2^10 pages, pageblocks with a migrate type.

Free pages are always merged as far as alignment allows. In the kernel, the history of the free lists decides
which of several equal blocks an allocation gets; here it is the lowest one, unless the zone has `FreeLists`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.pages.free_lists import FreeLists
from cluster.compaction.pages.page_map import (
    MAX_ORDER,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    USED,
    MigrateType,
    PageMap,
)
from cluster.compaction.pages.per_cpu_list import PcpRules, PerCpuList

_ORDERS = np.arange(MAX_ORDER + 1)

#: other types of pageblocks that a request may take memory from (fallbacks[] in mm/page_alloc.c)
_FALLBACKS = {
    MigrateType.UNMOVABLE: (MigrateType.RECLAIMABLE, MigrateType.MOVABLE),
    MigrateType.MOVABLE: (MigrateType.RECLAIMABLE, MigrateType.UNMOVABLE),
    MigrateType.RECLAIMABLE: (MigrateType.UNMOVABLE, MigrateType.MOVABLE),
}


def pages_of(heads: Pfns, sizes: I64) -> Pfns:
    """Return all pages of these blocks, block after block. int64[n], int64[n] -> int64[sum(sizes)]."""
    before = np.cumsum(sizes) - sizes
    pfns: Pfns = np.repeat(heads - before, sizes)
    pfns += np.arange(len(pfns))
    return pfns


def by_order(pfns: Pfns, orders: I64) -> Pfns:
    """Return the pages of whole free blocks, small blocks first, equal ones in their order. int64[n].

    orders int64[n]: order of the block that starts at each page; below 0 inside a block.
    """
    heads = (orders >= 0).nonzero()[0]
    head_orders = orders[heads]
    if (head_orders[1:] >= head_orders[:-1]).all():
        return pfns
    first = np.argsort(head_orders, kind="stable")
    return pages_of(pfns[heads[first]], np.int64(1) << head_orders[first].astype(np.int64))


@dataclass(slots=True)
class CompactionCache:
    """What a zone remembers from one compaction to the next (struct zone)."""

    migrate_pfn: list[int]  #: next start of the migrate scanner: in async mode, in the other modes
    free_pfn: int
    #: outermost starts: 0 until the hints are cleared for the first time
    init_migrate_pfn: int = 0
    init_free_pfn: int = 0
    blockskip_flush: bool = False
    considered: int = 0
    defer_shift: int = 0
    order_failed: int = 0


@dataclass(slots=True)
class Zone:
    """Pages start..end-1 of a page map, some of them free. `watermark_min` and `free_pages` in pages.

    lists: the order of the free lists, and `pcp`, the pages that are to be freed, which `free_pages` does not
    count; None unless that matters. capture: the order of a block that a compaction waits for; the first
    that comes into being is `captured`, not freed.
    """

    pages: PageMap
    start: int
    end: int
    name: str = "Normal"
    watermark_min: int = 0
    watermark_low: int = 0
    lowmem_reserve: int = 0  #: kept from requests that could use a higher zone
    free_pages: int = 0
    cache: CompactionCache = field(init=False)
    lists: FreeLists | None = field(init=False, default=None)
    pcp: PerCpuList | None = field(init=False, default=None)
    capture: int | None = field(init=False, default=None)
    captured: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        last = (self.end - 1) // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
        self.cache = CompactionCache([self.start, self.start], last)
        self.free_pages = int(np.count_nonzero(self.pages.order[self.start : self.end] != USED))

    def free(self, pfns: Pfns) -> None:
        """Free pages that have no user left. int64[n], each once."""
        if self.pcp is not None:
            self.pages.let_go(pfns)
            for group in self.pcp.put(pfns):
                self._release(group)
            return
        self.pages.add_free(pfns)
        self.free_pages += len(pfns)

    def keep_lists(self, *, grows: bool) -> FreeLists:
        """Keep the free lists in their order from now on. grows: the per-cpu list may grow."""
        if self.lists is None:
            self.merge()
            self.lists = FreeLists(self.pages, self.start, self.end)
            self.pcp = PerCpuList(self._pcp_rules(grows))
        return self.lists

    def _pcp_rules(self, grows: bool) -> PcpRules:
        """Return the size of the per-cpu list on one CPU (zone_batchsize, zone_highsize)."""
        pages = self.end - self.start
        part = min(max(pages >> 12, 1), 64)
        batch = max((1 << ((part + part // 2).bit_length() - 1)) - 1, 1)
        high = max(self.watermark_low, 4 * batch)
        return PcpRules(high, batch, max(pages // 8, high) if grows else None)

    def forget_lists(self) -> None:
        """Forget the order of the free lists; what waits on the per-cpu list is free."""
        if self.pcp is not None:
            waiting, self.lists, self.pcp = self.pcp.take_all(), None, None
            self.free(waiting)

    def drain(self) -> None:
        """Free what waits on the per-cpu list (drain_pages)."""
        if self.pcp is not None and self.pcp.count:
            self._release(self.pcp.take_all())

    def _release(self, pfns: Pfns) -> None:
        assert self.lists is not None
        block = self.lists.release(pfns, self.capture)
        self.free_pages += len(pfns)
        if block is not None and self.capture is not None:
            self.free_pages -= 1 << self.capture
            self.pages.mark_used(slice(block, block + (1 << self.capture)))
            self.captured, self.capture = block, None

    def take(self, start: int, stop: int) -> Pfns:
        """Take every free page of start..stop-1, which is whole free blocks and used pages. int64[n]."""
        taken: Pfns = (self.pages.order[start:stop] != USED).nonzero()[0] + start
        self.use(taken)
        return taken

    def use(self, pfns: Pfns) -> None:
        """Take these free pages: whole free blocks, or the caller marks the block that it cuts as stale."""
        self.unlist(pfns)
        self.pages.mark_used(pfns)

    def unlist(self, pfns: Pfns) -> None:
        """Do the first half of `use`; `PageMap.mark_used` is the other one."""
        if self.lists is not None:
            self.lists.remove_all(pfns[self.pages.order[pfns] >= 0])
        self._no_longer_free(pfns)

    def use_unlisted(self, pfns: Pfns) -> None:
        """Do the same as `use` with pages of whole free blocks that are in no list any more."""
        self._no_longer_free(pfns)
        self.pages.mark_used(pfns)

    def _no_longer_free(self, pfns: Pfns) -> None:
        self.pages.remove_free(pfns)
        self.free_pages -= len(pfns)

    def heads(self, start: int, stop: int) -> Pfns:
        """Return the first pages of the free blocks that start in start..stop-1, ascending. int64[n]."""
        self.pages.merge(start, stop)
        heads: Pfns = (self.pages.order[start:stop] >= 0).nonzero()[0] + start
        return heads

    def merge(self) -> None:
        """Merge the pages that were freed since the last merge."""
        self.pages.merge(self.start, self.end)

    def buddyinfo(self) -> I64:
        """Return the number of free blocks of each order, as in /proc/buddyinfo. int64[11]."""
        if self.lists is not None:
            return np.array(self.lists.counts, np.int64)
        self.merge()
        order = self.pages.order[self.start : self.end]
        return np.bincount(order[order >= 0], minlength=MAX_ORDER + 1).astype(np.int64)

    def free_blocks(self, order: int) -> int:
        """Return how many blocks of `order` the free memory holds, counting those inside larger blocks."""
        return int((self.buddyinfo()[order:] << (_ORDERS[order:] - order)).sum())

    def unusable_index(self, order: int) -> float:
        """Return the share of the free memory that a request of `order` cannot use (debugfs: extfrag)."""
        blocks = self.buddyinfo() << _ORDERS
        total = int(blocks.sum())
        return (total - int(blocks[order:].sum())) / total if total else 1.0

    def fragmentation_score(self) -> int:
        """Return the percentage of the free memory outside blocks of the size of a huge page."""
        return int(self.unusable_index(PAGEBLOCK_ORDER) * 100)

    def has_block(self, order: int, types: tuple[MigrateType, ...]) -> bool:
        """Return whether a pageblock of one of these types has a free block of at least `order`."""
        if (lists := self.lists) is not None:
            orders = range(order, MAX_ORDER + 1)
            return any(lists.first(k, kind) is not None for k in orders for kind in types)
        return len(self._blocks(order, types)) > 0

    def alloc(self, order: int, migratetype: MigrateType = MigrateType.MOVABLE) -> int | None:
        """Take a block of 2^order pages and return its first page; None if none is above the watermark."""
        size = 1 << order
        if self.free_pages - size < self.watermark_min + self.lowmem_reserve:
            return None
        pfn = self._find(order, migratetype)
        if pfn is None:
            return None
        whole = int(self.pages.order[pfn])
        self.pages.split(pfn, order)
        if self.lists is not None:
            self.lists.cut(pfn, whole, order)
        self.pages.remove_free(slice(pfn, pfn + size))
        self.pages.mark_used(slice(pfn, pfn + size))
        self.free_pages -= size
        return pfn

    def alloc_bulk(self, count: int, migratetype: MigrateType = MigrateType.MOVABLE, order: int = 0) -> Pfns:
        """Take at most `count` pages above the watermark, smallest blocks first. int64[n].

        They are single pages, or for an `order` above 0 whole blocks of 2^order pages, one after the other.
        """
        self.forget_lists()
        left = min(count, self.free_pages - self.watermark_min) >> order << order
        taken: list[Pfns] = []
        while left > 0:
            if (got := self._alloc_run(left, migratetype, order)) is None:
                break
            taken.append(got)
            left -= len(got)
        return np.concatenate(taken) if taken else np.zeros(0, np.int64)

    def _alloc_run(self, count: int, migratetype: MigrateType, order: int) -> Pfns | None:
        """Take pages of the smallest blocks of the type, or of one stolen block if the type has none.

        The blocks are of at least `order`; `count` is a multiple of 2^order.
        """
        heads = self._blocks(order, (migratetype,))
        if len(heads) == 0:
            stolen = self._find(order, migratetype)
            if stolen is None:
                return None
            heads = np.array([stolen])
        orders = self.pages.order
        heads = heads[np.lexsort((heads, orders[heads]))]
        sizes = np.int64(1) << orders[heads].astype(np.int64)
        enough = int(np.searchsorted(np.cumsum(sizes), count)) + 1
        heads, sizes = heads[:enough], sizes[:enough]
        pfns = pages_of(heads, sizes)[:count]
        self.pages.mark_stale(int(heads[-1]))
        self.use(pfns)
        return pfns

    def _blocks(self, order: int, types: tuple[MigrateType, ...]) -> Pfns:
        """Return the heads of free blocks of at least `order` in pageblocks of these types, ascending."""
        self.merge()
        step = 1 << order
        first = -(-self.start // step) * step
        heads = np.flatnonzero(self.pages.order[first : self.end : step] >= order) * step + first
        return heads[np.isin(self.pages.pageblock_type[heads >> PAGEBLOCK_ORDER], types)]

    def _find(self, order: int, migratetype: MigrateType) -> int | None:
        """Return the block to cut: the smallest of the type, else the largest of another one (__rmqueue)."""
        if self.lists is not None:
            return self._find_listed(self.lists, order, migratetype)
        heads = self._blocks(order, (migratetype,))
        if len(heads):
            return int(heads[np.argmin(self.pages.order[heads])])
        for other in _FALLBACKS.get(migratetype, ()):
            heads = self._blocks(order, (other,))
            if len(heads):
                pfn = int(heads[np.argmax(self.pages.order[heads])])
                self._steal(pfn, migratetype, other)
                return pfn
        return None

    def _find_listed(self, lists: FreeLists, order: int, migratetype: MigrateType) -> int | None:
        """Do the same as `_find`, where the free lists say which of several blocks it is."""
        orders = range(order, MAX_ORDER + 1)
        own = (lists.first(k, migratetype) for k in orders)
        if (pfn := next((block for block in own if block is not None), None)) is not None:
            return pfn
        for other in _FALLBACKS.get(migratetype, ()):
            those = (lists.first(k, other) for k in reversed(orders))
            if (pfn := next((block for block in those if block is not None), None)) is not None:
                self._steal(pfn, migratetype, other)
                lists.relist(pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER)
                return pfn
        return None

    def _steal(self, pfn: int, migratetype: MigrateType, other: MigrateType) -> None:
        """Change the type of the pageblock if enough of it fits the new one (steal_suitable_fallback)."""
        order = int(self.pages.order[pfn])
        block = pfn >> PAGEBLOCK_ORDER
        if order >= PAGEBLOCK_ORDER:
            blocks = slice(block, block + (1 << (order - PAGEBLOCK_ORDER)))
            self.pages.set_pageblock_type(blocks, migratetype)
            return
        if migratetype == MigrateType.MOVABLE and order < PAGEBLOCK_ORDER // 2:
            return
        span = slice(block * PAGEBLOCK_PAGES, (block + 1) * PAGEBLOCK_PAGES)
        free = int(np.count_nonzero(self.pages.order[span] != USED))
        movable = int(np.count_nonzero(self.pages.mapping[span] != 0))
        if migratetype == MigrateType.MOVABLE:
            alike = movable
        else:
            alike = PAGEBLOCK_PAGES - free - movable if other == MigrateType.MOVABLE else 0
        if free + alike >= PAGEBLOCK_PAGES // 2:
            self.pages.set_pageblock_type(block, migratetype)
