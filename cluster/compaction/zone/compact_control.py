"""The request, the rules and the state of a compaction (struct compact_control)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType

COMPACT_CLUSTER_MAX = 32  #: pages of a batch; largest step of the free scanner
COSTLY_ORDER = 3  #: searches of the free lists begin above this order
_ALL_TYPES = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)
WHOLE_ZONE_ORDER = -1  #: compaction that was asked for by hand, not for an allocation


class Status(Enum):
    """The state or the outcome of a run (enum compact_result)."""

    CONTINUE = "continue"
    COMPLETE = "complete"  #: the scanners met after a whole pass
    PARTIAL_SKIPPED = "partial_skipped"  #: they met, but the pass began above the bottom
    CONTENDED = "contended"  #: given up
    SUCCESS = "success"  #: the block that was asked for is there
    SKIPPED = "skipped"  #: not enough free memory, or not fragmented
    DEFERRED = "deferred"  #: failed too often lately
    ENDLESS = "endless"  #: given up by the simulation: on this kernel, it would not end


@dataclass(frozen=True, slots=True)
class Request:
    """What a compaction is for; the defaults are those of /proc/sys/vm/compact_memory.

    `direct`: an allocation waits for it. `good_enough`: fragmentation score at which kcompactd ends.
    `unevictable`: unevictable LRU pages move too.
    """

    mode: MigrateMode = MigrateMode.SYNC
    order: int = WHOLE_ZONE_ORDER
    migratetype: MigrateType = MigrateType.MOVABLE
    whole_zone: bool = True
    ignore_skip_hint: bool = True
    direct: bool = False
    good_enough: int | None = None
    unevictable: bool = False

    @property
    def sync(self) -> bool:
        return self.mode != MigrateMode.ASYNC

    @property
    def isolate_mode(self) -> IsolateMode:
        mode = IsolateMode.UNEVICTABLE if self.unevictable else IsolateMode.NONE
        return mode if self.mode == MigrateMode.SYNC else mode | IsolateMode.ASYNC_MIGRATE

    @property
    def optimistic(self) -> bool:
        """Async direct compaction: it leaves an order-aligned block as soon as a page in it fails."""
        return self.direct and self.mode == MigrateMode.ASYNC


@dataclass(slots=True)
class Control:
    """The state that the two scanners share."""

    zone: Zone
    request: Request
    rules: CompactionRules
    migrate_pfn: int = 0
    free_pfn: int = 0
    whole_zone: bool = True
    wanted: int = 0  #: pages of the batch that needs targets
    owed: int = 0  #: pages of the batch that are free as soon as their targets are in use
    migrate_scanned: int = 0
    free_scanned: int = 0
    # the fast searches
    fast_search_fail: int = 0
    fast_start_pfn: int | None = 0  #: lowest block that they found; None once it was used
    search_order: int = field(init=False)

    def __post_init__(self) -> None:
        self.search_order = self.request.order

    @property
    def free_pages(self) -> int:
        """Free pages of the zone, for comparisons with its watermark."""
        return self.zone.free_pages + self.owed

    @property
    def searches(self) -> bool:
        """Return whether the run looks for pageblocks in the free lists, and may find one again and again."""
        return self.rules.rest_after_failure and self.request.direct

    @property
    def source_type(self) -> MigrateType:
        """Return the type of the pageblocks that an async direct compaction takes pages from."""
        whole = self.request.order >= PAGEBLOCK_ORDER
        return MigrateType.MOVABLE if whole and self.rules.movable_sources else self.request.migratetype

    def start(self) -> None:
        """Set both scanners to their first pageblocks: the outermost ones, or where the last run ended."""
        zone, cache = self.zone, self.zone.cache
        if self.rules.fast_search and (self.request.order > 0 or self.request.good_enough is not None):
            zone.keep_lists(grows=self.rules.pcp_grows)
        zone.merge()
        last = pageblock_start(zone.end - 1)
        self.migrate_pfn, self.free_pfn, self.whole_zone = zone.start, last, True
        if self.request.whole_zone:
            return
        self.migrate_pfn, self.free_pfn = cache.migrate_pfn[self.request.sync], cache.free_pfn
        if not zone.start <= self.free_pfn < zone.end:
            self.free_pfn = cache.free_pfn = last
        if not zone.start <= self.migrate_pfn < zone.end:
            self.migrate_pfn = zone.start
            cache.migrate_pfn = [zone.start, zone.start]
        self.whole_zone = self.migrate_pfn <= (
            cache.init_migrate_pfn if self.rules.fast_search else zone.start
        )

    def finished(self, *, canceled: bool) -> Status:
        """Return CONTINUE, or why the run ends (compact_finished)."""
        zone, order = self.zone, self.request.order
        if self.scanners_met():
            return self._pass_over()
        if canceled:
            return Status.CONTENDED
        if self.request.good_enough is not None:
            reached = zone.fragmentation_score() <= self.request.good_enough
            return Status.SUCCESS if reached else Status.CONTINUE
        if order == WHOLE_ZONE_ORDER or self.migrate_pfn % PAGEBLOCK_PAGES:
            return Status.CONTINUE
        stealing = self.request.migratetype == MigrateType.MOVABLE or order >= PAGEBLOCK_ORDER // 2
        types = _ALL_TYPES if stealing else (self.request.migratetype,)
        return Status.SUCCESS if zone.has_block(order, types) else Status.CONTINUE

    def _pass_over(self) -> Status:
        """Let the next run begin at the outermost pageblocks again."""
        zone, cache = self.zone, self.zone.cache
        cache.migrate_pfn = [zone.start, zone.start]
        cache.free_pfn = pageblock_start(zone.end - 1)
        cache.blockskip_flush |= self.request.direct
        return Status.COMPLETE if self.whole_zone else Status.PARTIAL_SKIPPED

    def hinted(self, pfn: int) -> bool:
        """Return whether this run skips the pageblock, because it had nothing to isolate lately."""
        return not self.request.ignore_skip_hint and bool(self.zone.pages.skip[pfn >> PAGEBLOCK_ORDER])

    def scanners_met(self) -> bool:
        """Return whether both are in the same pageblock, or past each other (compact_scanners_met)."""
        return self.free_pfn >> PAGEBLOCK_ORDER <= self.migrate_pfn >> PAGEBLOCK_ORDER

    def scan_limit(self) -> int:
        """Return how many blocks a fast search looks at: fewer after failures (freelist_scan_limit)."""
        return (COMPACT_CLUSTER_MAX >> min(15, self.fast_search_fail)) + 1


def pageblock_start(pfn: int) -> int:
    return pfn // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES


def block_end(pfn: int, order: int) -> int:
    """Return the end of the aligned block of this order that holds pfn."""
    return ((pfn >> order) + 1) << order


@dataclass(slots=True)
class Trace:
    """The events of the kernel's tracepoints, as (kind, ...) tuples.

    begin/end zone_start migrate_pfn free_pfn zone_end mode [status]; iso_m, iso_f start end scanned taken;
    mp succeeded failed mode; mig migrated failed.
    """

    events: list[tuple[object, ...]] = field(default_factory=list)

    def emit(self, *event: object) -> None:
        self.events.append(event)
