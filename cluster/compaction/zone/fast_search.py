"""Searches of the free lists that spare a compaction for a large order most scanning (mm/compaction.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I32, I64
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
    free, skip = _lists(c), c.zone.pages.skip
    limit, scanned = c.scan_limit(), 0
    for order in range(c.request.order - 1, COSTLY_ORDER - 1, -1):
        if scanned >= limit:
            break
        number = free.number(order, MigrateType.MOVABLE)
        left = limit - scanned
        # One more, which ends the search, and the one behind it, with which the list begins then.
        blocks = free.lists.head(number, left + 2)
        fits = np.flatnonzero((blocks[:left] < high_pfn) & ~skip[blocks[:left] >> PAGEBLOCK_ORDER])
        found = int(fits[0]) if len(fits) else None
        last = left if found is None else found
        scanned += min(last + 1, len(blocks))
        if last + 1 < len(blocks):
            free.lists.turn(number, int(blocks[last + 1]))
        if found is not None:
            c.migrate_scanned += scanned
            return int(blocks[found])
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
        found = search.run(limit, spare, count - taken, all_first=all_first)
        if not found:
            break
        heads += found
        orders += [search.order] * len(found)
        taken += len(found) << search.order
        spare -= len(found) << search.order if all_first else 0
    search.end()
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


@dataclass(slots=True)
class _Way:
    """What a search came by before the list it is at."""

    limit: int  #: blocks that it looks at in this list
    seen: int = 0  #: blocks of other lists that it looked at
    highest: int = 0  #: the highest pageblock with such a block, unless that does not matter
    #: lists without any block that matters: a page that none is above; how many blocks went from tail to head
    bound: int = -1
    turns: list[tuple[int, int]] = field(default_factory=list)
    #: whether all lists were such ones, so that the next search comes the same way
    again: bool = True


class _TargetSearch:
    """Searches with the same bounds over the orders, beginning with the one that was good last time.

    Lists are searched from their tails. Blocks that are found are taken from their lists.
    """

    def __init__(self, c: Control, low: int, least: int) -> None:
        self._c = c
        self._free = _lists(c)
        self._lists = self._free.lists
        self._low = low
        self._least = least
        #: by number of a list whose blocks do not matter: how many are to go from its tail to its head
        self._turns: dict[int, int] = {}
        #: by order: a page that no block of its list is above
        self._bounds: dict[int, int] = {}
        self.highest = 0  #: in the last search, the highest pageblock with a block that was looked at
        self.scanned = 0
        self.order = 0  #: of the blocks that were found

    def run(self, limit: int, spare: int, count: int, *, all_first: bool) -> list[int]:
        """Take the first block that fits, of at most `limit` that are looked at in the first list.

        Where one search after the other ends in the same list, take what they find, up to `count` pages.
        spare: pages above the watermark; all_first: less with each block that is taken.
        """
        c, way = self._c, _Way(limit)
        first = c.search_order = min(c.request.order - 1, c.search_order)
        for order in [*range(first, -1, -1), *range(c.request.order - 1, first, -1)]:
            number = self._free.number(order, MigrateType.MOVABLE)
            if self._lists.counts[number] == 0:
                continue
            if self._barren(order):
                self._pass_by(way, order, number)
                continue
            searches = -(-count >> order) if way.again else 1
            if all_first or spare <= 1 << order:
                searches = min(searches, max(-(-spare >> order) - 1, 0))
            self.order = order
            if (found := self._search(way, number, searches)) is not None:
                return found
        c.search_order = first - 1 if first > 0 else c.request.order - 1
        self._end_search(way, way.highest)
        return []

    def _pass_by(self, way: _Way, order: int, number: int) -> None:
        """Look at a list without any block that matters."""
        length, limit = self._lists.counts[number], way.limit
        way.seen += min(length, limit)
        way.bound = max(way.bound, self._bounds[order])
        if length >= limit:
            way.turns.append((number, limit))
            way.limit = max(1, limit >> 1)

    def _search(self, way: _Way, number: int, searches: int) -> list[int] | None:
        """Take the blocks that `searches` searches find in this list; None if the first finds nothing.

        Each search begins where the last one ended. Stop before one that would take another way. If
        `searches` is 0, make one search, and do not take its block.
        """
        c, order, limit = self._c, self.order, way.limit
        self._turn(number, self._turns.pop(number, 0))
        blocks = self._lists.tail(number, 4 * searches + limit)
        fair, end = self._fair(blocks), len(blocks)
        whole = end == self._lists.counts[number]
        best, stop = self._walk(fair, 0, 0, limit)
        if best is None:
            self._look_in_vain(way, number, blocks[:limit])
            return None
        first_fair, at = 0, 0
        found: list[int] = []
        while best is not None and (stop <= end or whole):
            self.scanned += min(stop, end) - at
            place, block = fair[best]
            found.append(block)
            self._end_search(way, max(way.highest, block - block % PAGEBLOCK_PAGES, c.zone.start))
            again = way.again and way.bound < c.zone.cache.free_pfn
            if block >= self._low:
                again &= c.search_order == order and c.fast_search_fail == 0
                c.search_order, c.fast_search_fail = order, 0
            if not again or len(found) >= searches:
                break
            if whole:  # what was passed is at the head now
                fair += [(end + passed - at, other) for passed, other in fair[first_fair:best]]
                end += place - at
            first_fair, at = best + 1, place + 1
            best, stop = self._walk(fair, first_fair, at, limit)
        self._lists.turn(number, found[-1])
        if searches == 0:
            return []
        self._lists.leave(np.array(found))
        return found

    def _look_in_vain(self, way: _Way, number: int, blocks: I32) -> None:
        """Note that none of these blocks, the last ones of a list, is good enough."""
        top = int(blocks.max())
        way.highest = max(way.highest, top - top % PAGEBLOCK_PAGES, self._c.zone.start)
        way.again = False
        way.seen += len(blocks)
        if len(blocks) == way.limit:
            self._lists.turn(number, int(blocks[-1]))
            way.limit = max(1, way.limit >> 1)

    def _end_search(self, way: _Way, highest: int) -> None:
        """Count a search that came this way, and let the zone's next run begin below what it looked at."""
        self.highest = highest
        self.scanned += way.seen
        for number, count in way.turns:
            self._turns[number] = (self._turns.get(number, 0) + count) % self._lists.counts[number]
        cache = self._c.zone.cache
        if highest and highest >= cache.free_pfn:
            cache.free_pfn = highest - PAGEBLOCK_PAGES

    def _fair(self, blocks: I32) -> list[tuple[int, int]]:
        """Return the blocks above `least`, and their places before them."""
        places = (blocks >= self._least).nonzero()[0]
        return list(zip(places.tolist(), blocks[places].tolist(), strict=True))

    def _walk(self, fair: list[tuple[int, int]], first: int, at: int, limit: int) -> tuple[int | None, int]:
        """Look at `limit` blocks of a list from the place `at` on, of which `fair` are above `least`.

        Return the index of the best one in `fair`, if there is any from `first` on, and the place behind the
        last block looked at, which may be behind the end of the list.
        """
        best, top, stop = None, 0, at + limit
        for index in range(first, len(fair)):
            place, block = fair[index]
            if place >= stop:
                break
            if block > top:
                best, top = index, block
                if block >= self._low:
                    return best, place + 1
                limit >>= 1
                stop = max(at + limit, place + 1)
        return best, stop

    def _barren(self, order: int) -> bool:
        """Return whether no block of a list is above `least`, nor so high that the zone would remember it."""
        if order not in self._bounds:
            self._bounds[order] = self._free.bound(order, MigrateType.MOVABLE)
        bound = self._bounds[order]
        return bound < self._least and bound < self._c.zone.cache.free_pfn

    def end(self) -> None:
        """Turn round the lists whose blocks did not matter."""
        for number, count in self._turns.items():
            self._turn(number, count)

    def _turn(self, number: int, count: int) -> None:
        """Let the last blocks of a list be its first ones."""
        if count:
            self._lists.turn(number, int(self._lists.tail(number, count)[-1]))


def _lists(c: Control) -> FreeLists:
    return c.zone.keep_lists(grows=c.rules.pcp_grows)
