"""Searches of the free lists that spare a compaction for a large order most scanning (mm/compaction.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64
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
    after = lists.after.data
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


class Found(NamedTuple):
    """Blocks that were taken from the lists, in their order. int64[n], int64[n].

    failed: the last search found none; around: pfn to look for more pages around; scanned: pages.
    """

    heads: I64
    orders: I64
    failed: bool
    around: int | None
    scanned: int


def isolate_freepages(c: Control, count: int, *, all_first: bool) -> Found:
    """Take free blocks of the upper part of the space between the scanners (fast_isolate_freepages).

    One search takes one block. They go on until the blocks have `count` pages, or one finds nothing.
    all_first: no page is freed before the last block is taken; else one for each page taken.
    """
    zone = c.zone
    scan_start = c.free_pfn >= zone.cache.init_free_pfn
    distance = c.free_pfn - c.migrate_pfn
    low = pageblock_start(c.free_pfn - (distance >> 2))
    least = pageblock_start(c.free_pfn - (distance >> 1))
    search = _TargetSearch(c, max(low, least), least)
    spare, taken = c.free_pages - zone.watermark_min, 0
    heads: list[int] = []
    orders: list[int] = []
    while taken < count:
        limit = PAGEBLOCK_PAGES >> 1 if scan_start else max(1, c.scan_limit() >> 1)
        found = search.run(limit, spare)
        if search.highest and search.highest >= zone.cache.free_pfn:
            zone.cache.free_pfn = search.highest - PAGEBLOCK_PAGES
        if found is None:
            break
        heads.append(found)
        orders.append(search.order)
        taken += 1 << search.order
        spare -= 1 << search.order if all_first else 0
    failed = taken < count
    around = heads[-1] if heads else None
    if failed:
        c.fast_search_fail += 1
        around = _restart(c, search.highest, least) if scan_start else None
    scanned = search.scanned + taken - len(heads)
    return Found(np.array(heads, np.int64), np.array(orders, np.int64), failed, around, scanned)


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
    """Searches with the same bounds over the orders, beginning with the one that was good last time.

    Lists are searched from their tails. Blocks that are found are taken from their lists.
    """

    def __init__(self, c: Control, low: int, least: int) -> None:
        self._c = c
        self._lists = _lists(c)
        self._low = low
        self._least = least
        self._limit = 0
        #: by order of a list that was searched in vain: a page that no block of it is above
        self._bounds: dict[int, int] = {}
        #: by order of a list without any block that matters: its length
        self._barren: dict[int, int] = {}
        self.highest = 0  #: in the last search, the highest pageblock with a block that was looked at
        self.scanned = 0
        self.order = 0  #: of the block that was found

    def run(self, limit: int, spare: int) -> int | None:
        """Take the first block that fits, of at most `limit` that are looked at in the first list.

        spare: pages above the watermark.
        """
        c, counts = self._c, self._lists.counts
        self._limit, self.highest = limit, 0
        first = c.search_order = min(c.request.order - 1, c.search_order)
        for order in [*range(first, -1, -1), *range(c.request.order - 1, first, -1)]:
            if not counts[order]:
                continue
            block = self._pick(order)
            if block is None:
                continue
            if spare <= 1 << order:
                return None
            self.order = order
            self._lists.remove(block, order)
            return block
        c.search_order = first - 1 if first > 0 else c.request.order - 1
        return None

    def _pick(self, order: int) -> int | None:
        """Return the first block above `low`, else the best one above `least`.

        What was looked at is the last to be looked at next time.
        """
        length = self._barren.get(order, self._limit + 1)
        if length <= self._limit and self._bounds[order] < self._c.zone.cache.free_pfn:
            best, seen = 0, length
        else:
            best, seen = self._search(order)
        self.scanned += seen
        if best:
            return best
        if seen >= self._limit:
            self._limit = max(1, self._limit >> 1)
        return None

    def _search(self, order: int) -> tuple[int, int]:
        """Return the best block or 0, and how many blocks were looked at. Turn the list."""
        lists, anchor = self._lists, FreeLists.anchor(order, MigrateType.MOVABLE)
        bound = self._bounds.get(order, self._least)
        barren = bound < self._least and bound < self._c.zone.cache.free_pfn
        best, block, seen = self._pass_by(anchor) if barren else self._look(order, anchor)
        if best or block >= 0:
            lists.turn(anchor, best or block)
        if best == 0 and order not in self._bounds:
            self._bounds[order] = lists.bound(order, MigrateType.MOVABLE)
        if barren and block < 0:
            self._barren[order] = seen
        return best, seen

    def _look(self, order: int, anchor: int) -> tuple[int, int, int]:
        """Look at the blocks of a list from its tail on.

        Return the best block or 0, the block where it stopped (below 0: all were looked at), and how many
        blocks were looked at.
        """
        limit, low, least, before = self._limit, self._low, self._least, self._lists.before.data
        seen = best = top = 0
        block = before[anchor]
        while block >= 0:
            seen += 1
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
        if seen:
            self.highest = max(self.highest, top - top % PAGEBLOCK_PAGES, self._c.zone.start)
        return best, block, seen

    def _pass_by(self, anchor: int) -> tuple[int, int, int]:
        """Do the same where no block is above `least`, or so high that the zone would remember it."""
        before, limit = self._lists.before.data, self._limit
        block = before[anchor]
        seen = 0
        while block >= 0:
            seen += 1
            if seen >= limit:
                break
            block = before[block]
        return 0, block, seen


def _lists(c: Control) -> FreeLists:
    return c.zone.keep_lists(grows=c.rules.pcp_grows)
