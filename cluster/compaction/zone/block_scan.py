"""The migrate scanner inside one pageblock (isolate_migratepages_block()), as a state machine."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.isolation import Isolation
from cluster.compaction.movable.page_movable import isolatable, isolated, still_movable
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PG_LRU, USED, PageMap
from cluster.compaction.zone.compact_control import COMPACT_CLUSTER_MAX, Request, block_end
from cluster.compaction.zone.predicted_sources import scan_count

_NO_PAGES: I64 = np.zeros(0, np.int64)


class BlockScan:
    """Isolates pages from `low` on. `step` until `finished`: with a full batch, or at the pageblock's end.

    `whole`: the batch takes all movable pages up to the end of the pageblock.
    """

    def __init__(
        self, memory: Memory, request: Request, low: int, rules: CompactionRules, *, whole: bool
    ) -> None:
        self._memory = memory
        self._pages = memory.pages
        self._request = request
        self._rules = rules
        self._whole = whole
        self.start = self.low = low
        self.end = block_end(low, PAGEBLOCK_ORDER)
        self.scanned = 0
        self.isolated = 0
        self.finished = False
        self.met_lru = False  #: whether there was a page on the LRU lists; noted where hints matter
        #: pages isolated; the last one added is migrated first
        self.list = _NO_PAGES
        #: pages that looked movable in the last step
        self._peeked: I64 | None = None
        self._asking: Isolation | None = None
        #: optimistic: the next page that cannot be isolated
        self._fails_at: int | None = None

    @property
    def locked(self) -> I64:
        """Pages whose driver is about to decide whether to let them go."""
        return self._asking.locked if self._asking else _NO_PAGES

    @property
    def untouched(self) -> bool:
        """Return whether no page is isolated or about to be, and there are pages to look at."""
        at_work = self._peeked is not None or self._asking is not None or len(self.list)
        return not at_work and self.low < self.end

    def step(self, grain: int | None) -> I64:
        """Isolate the next at most `grain` pages, or all at once; return pages to be put back after all."""
        if self._asking is not None:
            return self._take_granted(self._asking)
        if self._peeked is not None:
            self._lock(self._peeked)
        elif self.low == self.end:
            self.finished = True
        else:
            return self._peek(grain)
        return _NO_PAGES

    def _peek(self, grain: int | None) -> I64:
        """Find the next pages that look movable; without any, pass to the end of the block or pageblock."""
        pages, mode = self._pages, self._request.isolate_mode
        end, self._fails_at = self.end, None
        if self._request.optimistic:
            end = min(block_end(self.low, self._request.order), end)
            self._fails_at = _first_failing(pages, self.low, end, isolatable(pages, self.low, end, mode))
        found = isolatable(pages, self.low, end if self._fails_at is None else self._fails_at, mode)
        wanted = len(found) if self._whole else self._wanted(found)
        chunk = found[: wanted if grain is None else min(wanted, grain)]
        if len(chunk) == 0:
            return self._pass_over(end)
        self._advance(int(chunk[-1]) + pages.count_pages(chunk[-1:]))
        self._peeked = chunk
        return self._take_granted(self._lock(chunk)) if grain is None else _NO_PAGES

    def _wanted(self, found: I64) -> int:
        """Return how many of these pages make the batch full; a large folio counts with all its pages."""
        missing = COMPACT_CLUSTER_MAX - self.isolated
        if self._pages.folio_order is None:
            return missing
        return int(np.searchsorted(np.cumsum(self._pages.folio_sizes(found)), missing)) + 1

    def _lock(self, chunk: I64) -> Isolation:
        """Lock the pages. Other compactors may have isolated, moved or freed some of them since the look."""
        self._peeked = None
        if not self._request.ignore_skip_hint and np.count_nonzero(self._pages.flags[chunk] & PG_LRU):
            self.met_lru = True
        pfns = still_movable(self._pages, chunk)
        isolation = self._asking = Isolation(self._memory, pfns, self._request.isolate_mode)
        isolation.begin()
        return isolation

    def _advance(self, stop: int) -> None:
        self.scanned += scan_count(self._pages, self.low, stop, self._rules)
        self._memory.vmstat.skipped_isolated += isolated(self._pages, self.low, stop)
        self.low = stop

    def _pass_over(self, end: int) -> I64:
        if self._fails_at is not None:
            huge = self._pages.any_huge and self._pages.huge[self._fails_at >> PAGEBLOCK_ORDER]
            self._advance(self.end if huge else self._fails_at + 1)
            return self._give_up_block()
        self._advance(end)
        self.finished = self._request.optimistic and self.isolated > 0
        return _NO_PAGES

    def _give_up_block(self) -> I64:
        """Leave the aligned block, as async direct compaction does once a page in it fails."""
        self.low = min(block_end(self.low - 1, self._request.order), self.end)
        self.isolated = 0
        given_up, self.list = self.list, _NO_PAGES
        return given_up

    def _take_granted(self, isolation: Isolation) -> I64:
        isolation.finish()
        self._asking = None
        granted = isolation.granted
        self.isolated += self._pages.count_pages(granted)
        self.list = np.concatenate([granted[::-1], self.list]) if len(self.list) else granted[::-1]
        if len(granted) < len(isolation.asked) and self._request.optimistic:
            return self._give_up_block()
        self.finished = self.isolated >= COMPACT_CLUSTER_MAX and not self._whole
        return _NO_PAGES


def _first_failing(pages: PageMap, start: int, end: int, movable: I64) -> int | None:
    """Return the first used page that does not look movable, if any."""
    fails = pages.order[start:end] == USED
    fails[movable - start] = False
    return int(np.argmax(fails)) + start if fails.any() else None
