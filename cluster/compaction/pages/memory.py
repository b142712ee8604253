"""One node's memory: its pages, its zones, the owners of movable pages and the counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.movable_operations import MovableOperations
from cluster.compaction.pages.page_map import OWNER_SHIFT, MigrateType, PageKind, PageMap


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
    compact_endless: int = 0  #: requests whose compaction would not end on this kernel
    # contention
    skipped_isolated: int = 0  #: pages passed by because another compactor has them
    skipped_locked: int = 0  #: isolations that failed at the page lock
    migrate_locked: int = 0  #: attempts to move that found the page locked, and were put off
    lock_waits: int = 0  #: waits for a page to move or put back that was locked by another

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(slots=True)
class Kswapd:
    """The thread that reclaims memory, where there is nothing to reclaim."""

    awake: bool = False
    failures: int = 0  #: times that it ran in vain


class ProxyPages(Protocol):
    """Page frame numbers above the zones, for pages on other nodes."""

    def free(self, pfns: Pfns) -> Pfns:
        """Free the proxies among these pages; return the other pages. int64[n] -> int64[0..n]."""


@dataclass(slots=True)
class Memory:
    """The memory of one node. Zones ascend and do not overlap."""

    pages: PageMap
    zones: list[Zone]
    vmstat: VmStat = field(default_factory=VmStat)
    #: operations by owner number; pages without an owner have number 0
    operations: list[MovableOperations | None] = field(default_factory=lambda: [None])
    #: called after every attempt to isolate, with the pages asked for and those granted
    on_isolate: Callable[[Pfns, Pfns], None] | None = None
    #: called before the VM moves on from pages that their driver has given up, with these, their targets and
    #: the mode: from 6.18 on, it first asks the driver to move them
    on_given_up: Callable[[Pfns, Pfns, int], None] | None = None
    proxies: ProxyPages | None = None
    kswapd: Kswapd = field(default_factory=Kswapd)

    def register(self, operations: MovableOperations) -> int:
        """Add an owner; return its number, for the mapping words of its pages."""
        self.operations.append(operations)
        return len(self.operations) - 1

    def operations_of(self, word: int) -> MovableOperations | None:
        """Return the operations of the owner of a page with this mapping word."""
        return self.operations[word >> OWNER_SHIFT]

    def zone_of(self, pfn: int) -> Zone:
        return next(zone for zone in self.zones if zone.start <= pfn < zone.end)

    def free(self, pfns: Pfns) -> None:
        """Free these pages, in whatever zones they are. int64[n], each once."""
        if self.proxies is not None:
            pfns = self.proxies.free(pfns)
        for zone in self.zones:
            inside = pfns[(pfns >= zone.start) & (pfns < zone.end)]
            if len(inside):
                zone.free(inside)

    def put(self, pfns: Pfns, count: int = 1) -> None:
        """Drop `count` references of each page; those without any left (put_page). int64[n], each once."""
        if (gone := self.pages.put(pfns, count)).size:
            self.free(gone)

    def alloc(self, order: int, migratetype: MigrateType = MigrateType.MOVABLE) -> int | None:
        """Take a block of 2^order pages from the highest zone that has one; None if none has."""
        for zone in reversed(self.zones):
            if (pfn := zone.alloc(order, migratetype)) is not None:
                return pfn
        return None

    def alloc_bulk(self, count: int, migratetype: MigrateType = MigrateType.MOVABLE, order: int = 0) -> Pfns:
        """Take at most `count` pages, from the highest zone down, as `Zone.alloc_bulk` does. int64[n]."""
        taken: list[Pfns] = []
        for zone in reversed(self.zones):
            taken.append(zone.alloc_bulk(count, migratetype, order))
            count -= len(taken[-1])
        return np.concatenate(taken)

    def take_range(self, start: int, end: int) -> None:
        """Take pages start..end-1, all of which are free."""
        for zone in self.zones:
            lo, hi = max(start, zone.start), min(end, zone.end)
            if lo < hi:
                zone.forget_lists()
                self.pages.merge(lo, hi)
                zone.take(lo, hi)
                # free blocks that reached into the range are cut at its ends
                self.pages.mark_stale(lo)
                self.pages.mark_stale(hi - 1)

    def forget_lists(self) -> None:
        """Forget the order of all free lists, before pages or pageblocks change without them."""
        for zone in self.zones:
            zone.forget_lists()

    def poison(self, pfn: int) -> None:
        """Take this free page for good."""
        self.take_range(pfn, pfn + 1)
        self.pages.set_kind(np.array([pfn]), PageKind.POISONED)

    def free_blocks(self, order: int) -> int:
        """Return the number of blocks of `order` in the free memory of all zones."""
        return sum(zone.free_blocks(order) for zone in self.zones)
