"""Compaction for an allocation that waits for it (__alloc_pages_slowpath), and when it is put off."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.kernel_rules import DEFAULT_RULES, CompactionRules
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import (
    MAX_ORDER,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PG_LRU,
    MigrateType,
)
from cluster.compaction.zone.compact_control import COSTLY_ORDER, Request, Status
from cluster.compaction.zone.compact_zone import Compaction

MAX_DEFER_SHIFT = 6
EXTFRAG_THRESHOLD = 500  #: sysctl_extfrag_threshold: up to it, reclaim would help more than compaction
_SAMPLE = 1 << COSTLY_ORDER  #: one page in this many is looked at to reset a hint


@dataclass(slots=True)
class Allocation:
    """A request for 2^order pages that may compact memory. `step` until `done`; `pfn` None: it failed.

    modes: compaction is tried in one after the other: in async mode only, as with __GFP_NORETRY, or then in
    sync-light mode, as with __GFP_RETRY_MAYFAIL.
    """

    memory: Memory
    order: int
    migratetype: MigrateType = MigrateType.MOVABLE
    modes: tuple[MigrateMode, ...] = (MigrateMode.ASYNC, MigrateMode.SYNC_LIGHT)
    rules: CompactionRules = DEFAULT_RULES
    grain: int | None = None
    pfn: int | None = field(init=False, default=None)
    done: bool = field(init=False, default=False)
    moves: list[tuple[I64, I64]] = field(init=False, default_factory=list)
    scanned: int = field(init=False, default=0)
    running: Compaction | None = field(init=False, default=None)
    _left: list[tuple[MigrateMode, list[Zone]]] = field(init=False)
    _stalled: bool = field(init=False, default=False)  #: in this mode, a zone was suitable

    def __post_init__(self) -> None:
        self._left = [(mode, self.memory.zones[::-1]) for mode in self.modes]
        self._try_alloc()

    def run(self) -> int | None:
        """Do all of it, without other compactors in between; return the first page, or None."""
        while not self.done:
            self.step()
        return self.pfn

    def step(self) -> None:
        """Do the next piece of work."""
        if self.running is not None:
            if not self.running.done:
                self.running.step()
            if self.running.done:
                self._after(self.running)
        elif not self._left:
            self.done = True
        elif not self._left[0][1]:
            self._left.pop(0)
            self._attempted()
        else:
            self._begin(self._left[0][0], self._left[0][1].pop(0))

    def _begin(self, mode: MigrateMode, zone: Zone) -> None:
        if defer_request(zone, self.order):
            self._stalled = True
            self.memory.vmstat.compact_deferred += 1
            return
        if suitable(zone, self.order) != Status.CONTINUE:
            return
        self._stalled = True
        if restarting(zone, self.order):
            reset_isolation_suitable(zone)
        request = Request(
            mode, self.order, self.migratetype, whole_zone=False, ignore_skip_hint=False, direct=True
        )
        self.running = Compaction(self.memory, zone, request, rules=self.rules, grain=self.grain)

    def _after(self, compaction: Compaction) -> None:
        self.running = None
        self.moves += compaction.moves
        self.scanned += compaction.scanned
        zone, mode = compaction.zone, compaction.request.mode
        if compaction.status == Status.SUCCESS:
            defer_reset(zone, self.order, allocated=False)
            if self._left:
                self._left[0][1].clear()
        elif mode != MigrateMode.ASYNC and compaction.status != Status.CONTENDED:
            defer(zone, self.order)

    def _attempted(self) -> None:
        """Look for a block after all zones were tried in one mode."""
        if not self._stalled:
            return
        self._stalled = False
        self.memory.vmstat.compact_stall += 1
        self._try_alloc()
        if self.pfn is None:
            self.memory.vmstat.compact_fail += 1
        else:
            self.memory.vmstat.compact_success += 1
            defer_reset(self.memory.zone_of(self.pfn), self.order, allocated=True)

    def _try_alloc(self) -> None:
        self.pfn = self.memory.alloc(self.order, self.migratetype)
        self.done = self.pfn is not None


def defer_request(zone: Zone, order: int) -> bool:
    """Count a request; return whether to skip it, because compaction failed lately (compaction_deferred)."""
    cache = zone.cache
    if order < cache.order_failed:
        return False
    cache.considered = min(cache.considered + 1, 1 << cache.defer_shift)
    return cache.considered < 1 << cache.defer_shift


def defer(zone: Zone, order: int) -> None:
    """Skip twice as many of the next requests, because a run for this order failed (defer_compaction)."""
    cache = zone.cache
    cache.considered = 0
    cache.defer_shift = min(cache.defer_shift + 1, MAX_DEFER_SHIFT)
    cache.order_failed = min(cache.order_failed, order)


def defer_reset(zone: Zone, order: int, *, allocated: bool) -> None:
    """End the deferral of this order after a success (compaction_defer_reset).

    allocated: not only a run succeeded, but the allocation.
    """
    cache = zone.cache
    if allocated:
        cache.considered = cache.defer_shift = 0
    cache.order_failed = max(cache.order_failed, order + 1)


def restarting(zone: Zone, order: int) -> bool:
    """Return whether runs failed so often that the hints may be the reason (compaction_restarting)."""
    cache = zone.cache
    full = cache.defer_shift == MAX_DEFER_SHIFT and cache.considered >= 1 << MAX_DEFER_SHIFT
    return order >= cache.order_failed and full


def suitable(zone: Zone, order: int) -> Status:
    """Return CONTINUE, or SKIPPED if memory is too full or not fragmented (compaction_suitable)."""
    gap = 2 << order
    low = zone.watermark_low if order > COSTLY_ORDER else zone.watermark_min
    if zone.free_pages <= low + zone.lowmem_reserve + gap:
        return Status.SKIPPED
    index = fragmentation_index(zone, order)
    return Status.SKIPPED if order > COSTLY_ORDER and 0 <= index <= EXTFRAG_THRESHOLD else Status.CONTINUE


def fragmentation_index(zone: Zone, order: int) -> int:
    """Return why a request fails: near 0 for want of memory, near 1000 by fragmentation.

    -1000: there is a block (fragmentation_index).
    """
    counts = zone.buddyinfo()
    if counts[order:].any():
        return -1000
    blocks = int(counts.sum())
    if blocks == 0:
        return 0
    free = int((counts << np.arange(MAX_ORDER + 1)).sum())
    return 1000 - (1000 + free * 1000 // (1 << order)) // blocks


def kswapd_sleeps(memory: Memory) -> None:
    """Forget hints, as kswapd does before it sleeps, in zones that a direct compaction scanned to the end."""
    for zone in memory.zones:
        if zone.cache.blockskip_flush:
            reset_isolation_suitable(zone)


def reset_isolation_suitable(zone: Zone) -> None:
    """Forget hints of pageblocks with free or LRU pages in a sample; restart scanners at the outermost."""
    zone.cache.blockskip_flush = False
    zone.merge()
    pages, cache = zone.pages, zone.cache
    sampled = np.arange(zone.start // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES, zone.end, _SAMPLE)
    sampled = sampled[sampled >= zone.start]
    block = sampled >> PAGEBLOCK_ORDER
    free = np.unique(block[pages.order[sampled] >= 0])
    lru = np.unique(block[(pages.flags[sampled] & PG_LRU != 0) | pages.huge[block]])
    pages.clear_skip(free)
    pages.clear_skip(lru)
    targets = free[pages.pageblock_type[free] == MigrateType.MOVABLE]
    if len(free) == 0 or len(targets) == 0:
        return
    first = max(int(min([*lru[:1], *free[:1]])) << PAGEBLOCK_ORDER, zone.start)
    last = int(targets[-1]) << PAGEBLOCK_ORDER
    cache.init_migrate_pfn, cache.migrate_pfn = first, [first, first]
    cache.init_free_pfn = cache.free_pfn = last
