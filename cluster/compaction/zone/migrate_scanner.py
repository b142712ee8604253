"""The migrate scanner: the pageblocks that a compaction takes its pages from (isolate_migratepages())."""

from __future__ import annotations

from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from cluster.compaction.zone import fast_search
from cluster.compaction.zone.compact_control import Control, block_end


class MigrateScanner:
    """Moves `migrate_pfn` of a `Control` up, and keeps the hints and cached positions of its zone.

    An iteration is a scan of one pageblock, or of a part of it, and the migration of what it isolated.
    `rescan`: this one is in the pageblock of the iteration before; its batch takes the rest of the pageblock.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._zone = control.zone
        self._sync = control.request.sync
        self._rest_together = control.rules.rest_of_pageblock
        self._iteration_start = 0
        # pfn 0, in the kernel too: a run that begins in pageblock 0 takes it for half done
        self._last_migrated_pfn = 0
        self.rescan = False
        cached = control.zone.cache.migrate_pfn
        self._update_cached = not self._sync and cached[0] == cached[1]

    def begin_iteration(self) -> None:
        self._iteration_start = start = self._control.migrate_pfn
        same = self._last_migrated_pfn >> PAGEBLOCK_ORDER == start >> PAGEBLOCK_ORDER
        self.rescan = self._rest_together and same

    def next_pfn(self) -> int | None:
        """Return the next pfn to scan from, past pageblocks with hints or of other types; None: the end."""
        c = self._control
        low = fast_search.find_migrateblock(c) if c.rules.fast_search else c.migrate_pfn
        found = low != c.migrate_pfn and c.fast_search_fail == 0
        while (end := block_end(low, PAGEBLOCK_ORDER)) <= c.free_pfn:
            if found or not self.hinted(low):
                if self._suitable(low):
                    c.migrate_pfn = low
                    return low
                self._update_cached_pfn(end)
            found = False
            low = c.migrate_pfn = end
        return None

    def hinted(self, pfn: int) -> bool:
        """Return whether a scan that would begin at pfn skips its pageblock because of a hint."""
        return self._control.hinted(pfn) and (pfn % PAGEBLOCK_PAGES == 0 or pfn == self._zone.start)

    def _suitable(self, pfn: int) -> bool:
        """Keep async direct compaction to pageblocks of the type asked for (suitable_migration_source)."""
        request = self._control.request
        if not request.optimistic:
            return True
        return bool(self._zone.pages.pageblock_type[pfn >> PAGEBLOCK_ORDER] == request.migratetype)

    def isolated_some(self, count: int) -> None:
        """End the scan of an iteration that isolated `count` pages, which need as many targets."""
        self._update_cached = False
        self._last_migrated_pfn = self._iteration_start
        self._control.wanted = count

    def isolated_nothing(self) -> None:
        """End an iteration that isolated no page."""
        if self._update_cached:
            self._zone.cache.migrate_pfn[1] = self._zone.cache.migrate_pfn[0]

    def exhausted(self, start: int, end: int) -> None:
        """Hint that a scan from `start` to the end of its pageblock left nothing to isolate."""
        if start % PAGEBLOCK_PAGES == 0:
            self._zone.pages.set_skip(start >> PAGEBLOCK_ORDER)
        self._update_cached_pfn(end)

    def leave_block(self, order: int) -> None:
        """Go on behind the aligned block of this order, in which a page failed."""
        c = self._control
        c.migrate_pfn = block_end(c.migrate_pfn - 1, order)
        self._last_migrated_pfn = 0

    def _update_cached_pfn(self, pfn: int) -> None:
        cached = self._zone.cache.migrate_pfn
        cached[0] = max(cached[0], pfn)
        if self._sync:
            cached[1] = max(cached[1], pfn)
