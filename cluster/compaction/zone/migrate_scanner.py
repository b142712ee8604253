"""The migrate scanner: the pageblocks that a compaction takes its pages from (isolate_migratepages())."""

from __future__ import annotations

from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from cluster.compaction.zone import fast_search
from cluster.compaction.zone.compact_control import Control, block_end, pageblock_start


class MigrateScanner:
    """Moves `migrate_pfn` of a `Control` up, and keeps the hints and cached positions of its zone.

    An iteration is a scan of one pageblock, or of a part of it, and the migration of what it isolated.
    `rescan`: this one is in the pageblock of the iteration before; its batch takes the rest of the pageblock.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._zone = control.zone
        self._sync = control.request.sync
        self._rules = control.rules
        self._iteration_start = 0
        # pfn 0, in the kernel too: a run that begins in pageblock 0 takes it for half done
        self._last_migrated_pfn = 0
        self.rescan = False
        #: a page failed: the rest of its pageblock comes next, without a look whether to go on
        self.rest_is_next = False
        cached = control.zone.cache.migrate_pfn
        self._update_cached = not self._sync and cached[0] == cached[1]

    def begin_iteration(self) -> None:
        self._iteration_start = start = self._control.migrate_pfn
        if self.rest_is_next:
            self.rescan, self.rest_is_next = True, False
            return
        same = self._last_migrated_pfn >> PAGEBLOCK_ORDER == start >> PAGEBLOCK_ORDER
        self.rescan = self._rules.rest_of_pageblock and same

    def next_pfn(self) -> int | None:
        """Return the next pfn to scan from, past pageblocks with hints or of other types; None: the end."""
        c = self._control
        low = fast_search.find_migrateblock(c) if self._searches else c.migrate_pfn
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

    @property
    def _searches(self) -> bool:
        """Return whether to search the free lists for a pageblock, and not to go on in this one."""
        return self._rules.fast_search and not (self.rescan and self._rules.rest_after_failure)

    def hinted(self, pfn: int) -> bool:
        """Return whether a scan that would begin at pfn skips its pageblock because of a hint."""
        return self._control.hinted(pfn) and (pfn % PAGEBLOCK_PAGES == 0 or pfn == self._zone.start)

    def _suitable(self, pfn: int) -> bool:
        """Keep async direct compaction to pageblocks of one type (suitable_migration_source)."""
        request = self._control.request
        if not request.optimistic:
            return True
        return bool(self._zone.pages.pageblock_type[pfn >> PAGEBLOCK_ORDER] == self._control.source_type)

    def isolated_some(self, count: int) -> None:
        """End the scan of an iteration that isolated `count` pages, which need as many targets."""
        self._update_cached = False
        c = self._control
        last = pageblock_start(c.migrate_pfn - 1) if self._rules.rest_after_failure else self._iteration_start
        self._last_migrated_pfn = max(last, self._zone.start) if self._rules.rest_after_failure else last
        c.wanted = count

    def isolated_nothing(self) -> None:
        """End an iteration that isolated no page."""
        if self._update_cached:
            self._zone.cache.migrate_pfn[1] = self._zone.cache.migrate_pfn[0]

    def met_lru(self, start: int) -> None:
        """Hint, before the pageblock is through, that a scan from `start` has met a page on the LRU lists."""
        if self._rules.rest_after_failure and start % PAGEBLOCK_PAGES == 0:
            self._zone.pages.set_skip(start >> PAGEBLOCK_ORDER)

    def gave_up(self, end: int) -> None:
        """Pass by a pageblock that ends there, and has got a hint since it was chosen."""
        self._control.migrate_scanned += 1
        self._control.migrate_pfn = end
        self._update_cached_pfn(end)

    def exhausted(self, start: int, end: int) -> None:
        """Hint that a scan from `start` to the end of its pageblock left nothing to isolate."""
        if start % PAGEBLOCK_PAGES == 0:
            self._zone.pages.set_skip(start >> PAGEBLOCK_ORDER)
        self._update_cached_pfn(end)

    def leave_block(self, order: int) -> None:
        """Go on behind the aligned block of this order, in which a page failed."""
        c = self._control
        if self._rules.rest_after_failure:
            self._finish_block()
            return
        if not c.request.optimistic:
            return
        c.migrate_pfn = block_end(c.migrate_pfn - 1, order)
        self._last_migrated_pfn = 0

    def _finish_block(self) -> None:
        """Isolate the rest of the pageblock next, if hints matter."""
        c = self._control
        begun = c.migrate_pfn % PAGEBLOCK_PAGES != 0
        if begun and not (c.request.ignore_skip_hint or self.rescan) and c.request.mode != MigrateMode.SYNC:
            self.rest_is_next = True
            if c.request.order == PAGEBLOCK_ORDER:
                self._last_migrated_pfn = 0

    def drain(self) -> None:
        """Free what waits on the per-cpu list once the aligned block with the pages moved last is left."""
        order, last = self._control.request.order, self._last_migrated_pfn
        if order > 0 and 0 < last < self._control.migrate_pfn >> order << order:
            self._zone.drain()
            self._last_migrated_pfn = 0

    def _update_cached_pfn(self, pfn: int) -> None:
        if self._rules.fast_search:
            # already the next pageblock: the kernel goes one too far
            pfn = block_end(pfn, PAGEBLOCK_ORDER)
        cached = self._zone.cache.migrate_pfn
        cached[0] = max(cached[0], pfn)
        if self._sync:
            cached[1] = max(cached[1], pfn)
