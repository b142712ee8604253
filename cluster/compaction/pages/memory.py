"""One node's memory: its pages, its zones, the owners of movable pages and the counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.page_map import MAX_ORDER, OWNER_SHIFT, Kind, MigrateType, PageMap

if TYPE_CHECKING:
    from cluster.compaction.internode.foreign_pages import Proxies
    from cluster.compaction.pages.movable_operations import MovableOperations


@dataclass(slots=True)
class VmStat:
    """Counters, named as in /proc/vmstat; below them what the kernel does not count."""

    pgmigrate_success: int = 0
    pgmigrate_fail: int = 0
    compact_migrate_scanned: int = 0
    compact_free_scanned: int = 0
    compact_isolated: int = 0
    compact_stall: int = 0
    compact_fail: int = 0
    compact_success: int = 0
    compact_deferred: int = 0  #: zones not compacted for a request, as that failed lately
    # contention
    skipped_isolated: int = 0  #: pages passed by because another compactor has them
    skipped_locked: int = 0  #: isolations that failed at the page lock
    migrate_locked: int = 0  #: attempts to move that found the page locked, and were put off
    lock_waits: int = 0  #: waits for a page to move or put back that was locked by another

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(slots=True)
class Memory:
    """The memory of one node. Zones ascend and do not overlap."""

    pages: PageMap
    zones: list[Zone]
    vmstat: VmStat = field(default_factory=VmStat)
    #: operations by owner number; number 0 is nobody
    operations: list[MovableOperations | None] = field(default_factory=lambda: [None])
    #: told of every attempt to isolate: the pages asked for, and those granted
    on_isolate: Callable[[I64, I64], None] | None = None
    #: page frame numbers above the zones, for pages on other nodes
    proxies: Proxies | None = None

    def register(self, operations: MovableOperations) -> int:
        """A new owner; its number, for the mapping words of its pages."""
        self.operations.append(operations)
        return len(self.operations) - 1

    def operations_of(self, word: int) -> MovableOperations | None:
        """Who owns a page with this mapping word."""
        return self.operations[word >> OWNER_SHIFT]

    def zone_of(self, pfn: int) -> Zone:
        return next(zone for zone in self.zones if zone.start <= pfn < zone.end)

    def free(self, pfns: I64) -> None:
        """These pages become free, in whatever zones they are. int64[n]."""
        if self.proxies is not None:
            pfns = self.proxies.free(pfns)
        for zone in self.zones:
            inside = pfns[(pfns >= zone.start) & (pfns < zone.end)]
            if len(inside):
                zone.free(inside)

    def put(self, pfns: I64) -> None:
        """put_page(): one reference less; pages without any become free. int64[n], each once."""
        counts = self.pages.refcount[pfns] - 1
        self.pages.refcount[pfns] = counts
        if (gone := pfns[counts == 0]).size:
            self.free(gone)

    def alloc(self, order: int, migratetype: MigrateType = MigrateType.MOVABLE) -> int | None:
        """A block of 2^order pages of the highest zone that has one; None if none has."""
        for zone in reversed(self.zones):
            if (pfn := zone.alloc(order, migratetype)) is not None:
                return pfn
        return None

    def alloc_bulk(self, count: int, migratetype: MigrateType = MigrateType.MOVABLE) -> I64:
        """At most `count` single pages, from the highest zone down. int64[n]."""
        taken: list[I64] = []
        for zone in reversed(self.zones):
            taken.append(zone.alloc_bulk(count, migratetype))
            count -= len(taken[-1])
        return np.concatenate(taken)

    def take_range(self, start: int, end: int) -> None:
        """Free pages start..end-1, all of them, are used from now on."""
        for zone in self.zones:
            lo, hi = max(start, zone.start), min(end, zone.end)
            if lo < hi:
                self.pages.merge(lo, hi)
                zone.take(lo, hi)
                self._mend(lo, hi)

    def poison(self, pfn: int) -> None:
        """This free page is never used again."""
        self.take_range(pfn, pfn + 1)
        self.pages.kind[pfn] = Kind.POISONED

    def _mend(self, start: int, end: int) -> None:
        """Free blocks that reached into the taken range are cut at its ends."""
        for edge in (start, end - 1):
            self.pages.stale[edge >> MAX_ORDER] = True

    def free_blocks(self, order: int) -> int:
        """Blocks of `order` in the free memory of all zones."""
        return sum(zone.free_blocks(order) for zone in self.zones)
