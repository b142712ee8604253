"""Searches of the free lists that spare a compaction for a large order most scanning (mm/compaction.c)."""

from __future__ import annotations

from typing import NamedTuple

from cluster.arrays.words import I64, empty
from cluster.compaction.pages.free_lists import FreeLists
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType
from cluster.compaction.zone.compact_control import COSTLY_ORDER, Control, pageblock_start


def find_migrateblock(c: Control) -> int:
    """Return a pageblock low in the zone that already has free blocks (fast_find_migrateblock)."""
    pfn, request = c.migrate_pfn, c.request
    at_start = pfn == c.zone.start or pfn % PAGEBLOCK_PAGES == 0
    asked = not request.direct or c.source_type == MigrateType.MOVABLE
    if request.ignore_skip_hint or not at_start or request.order <= COSTLY_ORDER or not asked:
        return pfn
    distance = (c.free_pfn - pfn) >> (1 if pfn == c.zone.start else 3)
    found = _source_below(c, pageblock_start(pfn + distance))
    if found is not None:
        c.fast_search_fail = 0
        if c.rules.hints_found_block:
            c.zone.pages.set_skip(found >> PAGEBLOCK_ORDER)
        if c.fast_start_pfn is not None:
            c.fast_start_pfn = min(c.fast_start_pfn or found, found)
        return max(pageblock_start(found), c.zone.start)
    c.fast_search_fail += 1
    if c.fast_start_pfn:
        c.migrate_pfn, c.fast_start_pfn = c.fast_start_pfn, None
    return c.migrate_pfn


def _source_below(c: Control, high_pfn: int) -> int | None:
    """Return a free block below high_pfn in a pageblock without a hint; the largest orders come first.

    Blocks that were looked at go to the ends of their lists.
    """
    lists, skip = _lists(c), c.zone.pages.skip
    limit, scanned = c.scan_limit(), 0
    after = lists.after
    for order in range(c.request.order - 1, COSTLY_ORDER - 1, -1):
        if scanned >= limit:
            break
        anchor = lists.anchor(order, MigrateType.MOVABLE)
        block = after[anchor]
        while block >= 0:
            scanned += 1
            fits = block < high_pfn and not skip[block >> PAGEBLOCK_ORDER]
            if scanned > limit or fits:
                lists.turn(anchor, after[block])
                if scanned <= limit:
                    c.migrate_scanned += scanned
                    return block
                break
            block = after[block]
    c.migrate_scanned += scanned
    return None


class Taken(NamedTuple):
    """A block that was taken, and its order; around: pfn to look for more pages around; scanned: pages."""

    pages: I64
    order: int | None
    around: int | None
    scanned: int


def isolate_freepages(c: Control) -> Taken:
    """Take a free block of the upper part of the space between the scanners (fast_isolate_freepages)."""
    zone = c.zone
    scan_start = c.free_pfn >= zone.cache.init_free_pfn
    distance = c.free_pfn - c.migrate_pfn
    low = pageblock_start(c.free_pfn - (distance >> 2))
    least = pageblock_start(c.free_pfn - (distance >> 1))
    search = _TargetSearch(c, max(low, least), least)
    taken = search.run(PAGEBLOCK_PAGES >> 1 if scan_start else max(1, c.scan_limit() >> 1))
    around = taken
    if taken is None:
        c.fast_search_fail += 1
        if scan_start:
            around = _restart(c, search.highest, least)
    if search.highest and search.highest >= zone.cache.free_pfn:
        zone.cache.free_pfn = search.highest - PAGEBLOCK_PAGES
    if taken is None:
        return Taken(empty(), None, around, search.scanned)
    pages = zone.take_block(taken, search.order)
    return Taken(pages, search.order, around, search.scanned + len(pages) - 1)


def _restart(c: Control, highest: int, least: int) -> int | None:
    """Return where the scan begins if the first search found nothing."""
    if highest >= least:
        c.free_pfn = highest
        return highest
    if c.request.direct:
        c.free_pfn = least
        return least
    return None


class _TargetSearch:
    """One search over the orders, beginning with the one that was good last time, from the tails of lists."""

    def __init__(self, c: Control, low: int, least: int) -> None:
        self._c = c
        self._lists = _lists(c)
        self._low = low
        self._least = least
        self._limit = 0
        self.highest = 0  #: the highest pageblock with a block that was looked at
        self.scanned = 0
        self.order = 0  #: of the block that was found

    def run(self, limit: int) -> int | None:
        """Return the first block that fits, of at most `limit` that are looked at in the first list."""
        c = self._c
        self._limit = limit
        c.search_order = min(c.request.order - 1, c.search_order)
        first = c.search_order
        for order in [*range(first, -1, -1), *range(c.request.order - 1, first, -1)]:
            if not self._lists.counts[order]:
                continue
            block = self._pick(order)
            if block is None:
                continue
            if c.free_pages <= c.zone.watermark_min + (1 << order):
                return None
            self.order = order
            return block
        c.search_order = first - 1 if first > 0 else c.request.order - 1
        return None

    def _pick(self, order: int) -> int | None:
        """Return the first block above `low`, else the best one above `least`.

        What was looked at is the last to be looked at next time.
        """
        lists, low, least = self._lists, self._low, self._least
        anchor, before = lists.anchor(order, MigrateType.MOVABLE), lists.before
        limit, seen, best, top, last = self._limit, 0, 0, 0, -1
        block = before[anchor]
        while block >= 0:
            seen += 1
            last = block
            if block > top:
                top = block
                if block >= low:
                    self._c.fast_search_fail = 0
                    self._c.search_order = order
                    best = block
                    break
                if block >= least:
                    best = block
                    limit >>= 1
            if seen >= limit:
                break
            block = before[block]
        self._limit = limit
        self.scanned += seen
        self.highest = max(self.highest, pageblock_start(top), self._c.zone.start if seen else 0)
        if best or block >= 0:
            lists.turn(anchor, best or last)
        if seen >= self._limit and not best:
            self._limit = max(1, self._limit >> 1)
        return best or None


def _lists(c: Control) -> FreeLists:
    return c.zone.keep_lists(grows=c.rules.pcp_grows)
