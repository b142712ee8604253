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
MAX_RECLAIM_RETRIES = 16  #: times that kswapd runs in vain before it gives up
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
        if not self.done:
            self._wake_kswapd()

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
                if self.memory.kswapd.awake and self.running.succeeded + self.running.failed:
                    # moving pages takes so long that kswapd has its turn
                    run_kswapd(self.memory)
            if self.running.done:
                self._after(self.running)
        elif not self._left:
            self.done = True
        elif not self._left[0][1]:
            self._left.pop(0)
            self._attempted()
            if self._left and not self.done:
                self._wake_kswapd()
        else:
            self._begin(self._left[0][0], self._left[0][1].pop(0))

    def _wake_kswapd(self) -> None:
        wake_kswapd(self.memory)
        if self.rules.kswapd_at_once and self.memory.kswapd.awake:
            run_kswapd(self.memory)

    def _begin(self, mode: MigrateMode, zone: Zone) -> None:
        if defer_request(zone, self.order):
            self._stalled = True
            self.memory.vmstat.compact_deferred += 1
            return
        if suitable(zone, self.order, self.rules) != Status.CONTINUE:
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
        self.pfn = self.pfn if compaction.captured is None else compaction.captured
        self.moves += compaction.moves
        self.scanned += compaction.scanned
        zone, mode = compaction.zone, compaction.request.mode
        if compaction.status == Status.ENDLESS:
            self.memory.vmstat.compact_endless += 1
            self._left = []
            defer(zone, self.order)
            return
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
        if self.pfn is None:
            self._try_alloc()
        self.done = self.pfn is not None
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


def suitable(zone: Zone, order: int, rules: CompactionRules) -> Status:
    """Return CONTINUE, or SKIPPED if memory is too full or not fragmented (compaction_suitable)."""
    gap = 2 << order
    low = zone.watermark_low if order > COSTLY_ORDER else zone.watermark_min
    reserve = 0 if rules.uses_reserve else zone.lowmem_reserve
    if zone.free_pages <= low + reserve + gap:
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


def wake_kswapd(memory: Memory) -> None:
    """Wake kswapd for a request that has to compact, unless it ran in vain too often (wakeup_kswapd)."""
    if memory.kswapd.failures < MAX_RECLAIM_RETRIES:
        memory.kswapd.awake = True


def run_kswapd(memory: Memory) -> None:
    """Let kswapd find nothing to reclaim and go to sleep.

    Then it forgets hints in zones that a direct compaction scanned to the end.
    """
    memory.kswapd.awake = False
    memory.kswapd.failures += 1
    for zone in memory.zones:
        if zone.cache.blockskip_flush:
            reset_isolation_suitable(zone)


def reset_isolation_suitable(zone: Zone) -> None:
    """Forget hints, pageblock by pageblock from both ends to the middle; restart the scanners.

    A pageblock at the lower end needs an LRU page in a sample, one at the upper end a free page; once there
    is a start at both ends, either will do (__reset_isolation_suitable).
    """
    zone.cache.blockskip_flush = False
    zone.merge()
    cache, low, high = zone.cache, zone.start, zone.end - 1
    reset_migrate, reset_free = high, low
    source_set = free_set = False
    while low < high:
        if _reset_block(zone, low, source=True, target=source_set) and low < reset_migrate:
            source_set, reset_migrate = True, low
            cache.init_migrate_pfn, cache.migrate_pfn = low, [low, low]
        if _reset_block(zone, high, source=free_set, target=True) and high > reset_free:
            free_set, reset_free = True, high
            cache.init_free_pfn = cache.free_pfn = high
        low, high = low + PAGEBLOCK_PAGES, high - PAGEBLOCK_PAGES
    if reset_migrate >= reset_free:
        cache.migrate_pfn, cache.free_pfn = [low, low], high


def _reset_block(zone: Zone, pfn: int, *, source: bool, target: bool) -> bool:
    """Forget the hint of a pageblock with a fitting page in a sample (__reset_isolation_pfn)."""
    pages, block = zone.pages, pfn >> PAGEBLOCK_ORDER
    if pages.huge[block]:
        return False
    if source and target and not pages.skip[block]:
        return True
    if target and not source and pages.pageblock_type[block] != MigrateType.MOVABLE:
        return False
    start = max(block << PAGEBLOCK_ORDER, zone.start)
    sampled = slice(start, min((block + 1) << PAGEBLOCK_ORDER, zone.end), _SAMPLE)
    found = source and bool(np.count_nonzero(pages.flags[sampled] & PG_LRU))
    found |= target and bool(np.count_nonzero(pages.order[sampled] >= 0))
    if found:
        pages.clear_skip(np.array([block]))
    return found
