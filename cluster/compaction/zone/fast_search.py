"""Searches of the free lists that spare a compaction for a large order most scanning (mm/compaction.c).

The kernel looks through its free lists in their order, which depends on the history of every free page. Here
a list runs from its highest block to its lowest. So a search finds a block of the right kind, but not always
the one that the kernel finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType
from cluster.compaction.zone.compact_control import COSTLY_ORDER, Control, pageblock_start

_NO_PAGES: I64 = np.zeros(0, np.int64)


def _free_list(c: Control, order: int) -> I64:
    """Return the MOVABLE free blocks of exactly this order, from the head of the list."""
    zone = c.zone
    heads = np.flatnonzero(zone.pages.order[zone.start : zone.end] == order) + zone.start
    movable = zone.pages.pageblock_type[heads >> PAGEBLOCK_ORDER] == MigrateType.MOVABLE
    blocks: I64 = heads[movable][::-1]
    return blocks


def find_migrateblock(c: Control) -> int:
    """Return a pageblock low in the zone that already has free blocks (fast_find_migrateblock)."""
    pfn, request = c.migrate_pfn, c.request
    at_start = pfn == c.zone.start or pfn % PAGEBLOCK_PAGES == 0
    asked = not request.direct or request.migratetype == MigrateType.MOVABLE
    if request.ignore_skip_hint or not at_start or request.order <= COSTLY_ORDER or not asked:
        return pfn
    distance = (c.free_pfn - pfn) >> (1 if pfn == c.zone.start else 3)
    found, scanned = _lowest_orders(c, pageblock_start(pfn + distance))
    c.migrate_scanned += scanned
    if found is not None:
        c.fast_search_fail = 0
        # a pageblock is found once in a run, whether or not a page of it moves
        c.zone.pages.set_skip(found >> PAGEBLOCK_ORDER)
        if c.fast_start_pfn is not None:
            c.fast_start_pfn = min(c.fast_start_pfn or found, found)
        return max(pageblock_start(found), c.zone.start)
    c.fast_search_fail += 1
    if c.fast_start_pfn:
        c.migrate_pfn, c.fast_start_pfn = c.fast_start_pfn, None
    return c.migrate_pfn


def _lowest_orders(c: Control, high_pfn: int) -> tuple[int | None, int]:
    """Return a free block below high_pfn in a pageblock without a hint, and how many blocks were looked at.

    The largest orders come first.
    """
    limit, scanned = c.scan_limit(), 0
    c.zone.merge()
    for order in range(c.request.order - 1, COSTLY_ORDER - 1, -1):
        if scanned >= limit:
            break
        blocks = _free_list(c, order)[: limit - scanned]
        fits = (blocks < high_pfn) & ~c.zone.pages.skip[blocks >> PAGEBLOCK_ORDER]
        if fits.any():
            first = int(np.argmax(fits))
            return int(blocks[first]), scanned + first + 1
        scanned += len(blocks)
    return None, scanned


@dataclass(frozen=True, slots=True)
class FastSearchResult:
    """Pages of a block that was taken; around: pfn to look for more pages around; extra: pages looked at."""

    pages: I64
    around: int | None
    extra: int


def isolate_freepages(c: Control) -> FastSearchResult | None:
    """Take a free block of the upper part of the space between the scanners (fast_isolate_freepages)."""
    if c.request.order <= 0:
        return None
    zone = c.zone
    zone.merge()
    limit = max(1, c.scan_limit() >> 1)
    scan_start = c.free_pfn >= zone.cache.init_free_pfn
    if scan_start:
        limit = PAGEBLOCK_PAGES >> 1
    distance = c.free_pfn - c.migrate_pfn
    low = pageblock_start(c.free_pfn - (distance >> 2))
    least = min(pageblock_start(c.free_pfn - (distance >> 1)), low)
    search = _FreeListSearch(c, limit, low, least)
    pages = search.run()
    around = search.found
    if around is None:
        c.fast_search_fail += 1
        if scan_start:
            around = _restart(c, search.highest, least)
    if search.highest and search.highest >= zone.cache.free_pfn:
        zone.cache.free_pfn = search.highest - PAGEBLOCK_PAGES
    return FastSearchResult(pages, around, search.scanned)


def _restart(c: Control, highest: int, least: int) -> int | None:
    """Return where the scan begins if the first search found nothing."""
    if highest >= least:
        c.free_pfn = highest
        return highest
    if c.request.direct:
        c.free_pfn = least
        return least
    return None


class _FreeListSearch:
    """One search over the orders, beginning with the one that was good last time."""

    def __init__(self, c: Control, limit: int, low: int, least: int) -> None:
        self.c = c
        self.limit = limit
        self.low = low
        self.least = least
        self.highest = 0
        self.scanned = 0
        self.found: int | None = None

    def run(self) -> I64:
        """Take the first block that fits; return its pages."""
        c = self.c
        c.search_order = min(c.request.order - 1, c.search_order)
        first = c.search_order
        for order in [*range(first, -1, -1), *range(c.request.order - 1, first, -1)]:
            if (block := self._pick(order)) is None:
                continue
            if c.free_pages <= c.zone.watermark_min + (1 << order):
                break
            self.found = block
            self.scanned += (1 << order) - 1
            return c.zone.take(block, block + (1 << order))
        if self.found is None and first > 0:
            c.search_order = first - 1
        return _NO_PAGES

    def _pick(self, order: int) -> int | None:
        """Return the first block above `low` from the list's tail, else the best one above `least`."""
        c = self.c
        # the lowest block is at the tail
        blocks = _free_list(c, order)[::-1][: self.limit]
        if len(blocks) == 0:
            return None
        good = np.flatnonzero(blocks >= self.low)
        seen = blocks[: int(good[0]) + 1] if len(good) else blocks
        self.scanned += len(seen)
        self.highest = max(self.highest, pageblock_start(int(seen.max())))
        if len(good):
            c.fast_search_fail = 0
            c.search_order = order
            return int(seen[-1])
        if len(seen) >= self.limit:
            self.limit = max(1, self.limit >> 1)
        return int(seen.max()) if seen.max() >= self.least else None
