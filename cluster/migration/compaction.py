"""Compaction of a zone (mm/compaction.c): sources from its bottom, targets from its top.

`Compaction` is one run of compact_zone(), as a state machine without any loop of its own: whoever drives it
decides what happens between two steps. Records of real kernels reproduce to the single move.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from cluster.migration.buddy import Zone
from cluster.migration.memory import Memory
from cluster.migration.migrate import MigrateRules, Migration
from cluster.migration.movable import Isolation, IsolateMode, MigrateMode, Putback, isolatable
from cluster.migration.pages import (
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PG_ISOLATED,
    TAIL,
    USED,
    MigrateType,
    PageMap,
)
from cluster.words import I64

COMPACT_CLUSTER_MAX = 32  #: pages of a batch; largest step of the free scanner
WHOLE_ZONE_ORDER = -1  #: compaction that was asked for by hand, not for an allocation
_NO_PAGES: I64 = np.zeros(0, np.int64)


class Status(Enum):
    """How a run stands or ended (enum compact_result)."""

    CONTINUE = "continue"
    COMPLETE = "complete"  #: the scanners met after a whole pass
    PARTIAL_SKIPPED = "partial_skipped"  #: they met, but the pass had not begun at the bottom
    CONTENDED = "contended"  #: given up
    SUCCESS = "success"  #: the block that was asked for is there
    SKIPPED = "skipped"  #: not enough free memory to begin
    DEFERRED = "deferred"  #: failed too often lately


@dataclass(frozen=True, slots=True)
class CompactionRules:
    """How releases differ."""

    migrate: MigrateRules
    #: the rest of a pageblock goes in one batch of any size
    rest_of_pageblock: bool
    #: largest step of the free scanner
    free_stride: int
    #: searches of the free lists that spare the scanners work for large orders
    fast_search: bool


RULES = {
    "4.8": CompactionRules(MigrateRules(putback_at_once=True, batch=None), False, 1, False),
    "6.1": CompactionRules(MigrateRules(), True, COMPACT_CLUSTER_MAX, True),
}


@dataclass(slots=True)
class Request:
    """What a compaction is for (struct compact_control, the fields a caller sets)."""

    mode: MigrateMode = MigrateMode.SYNC
    order: int = WHOLE_ZONE_ORDER
    migratetype: MigrateType = MigrateType.MOVABLE
    whole_zone: bool = True
    ignore_skip_hint: bool = True
    direct: bool = False
    unevictable: bool = False

    @property
    def isolate_mode(self) -> IsolateMode:
        mode = IsolateMode.UNEVICTABLE if self.unevictable else IsolateMode.NONE
        return mode if self.mode == MigrateMode.SYNC else mode | IsolateMode.ASYNC_MIGRATE


@dataclass(slots=True)
class _Scan:
    """The migrate scanner inside one pageblock (isolate_migratepages_block)."""

    low: int
    end: int
    start: int
    scanned: int = 0
    isolated: int = 0
    asking: Isolation | None = None


@dataclass(slots=True)
class FreePages:
    """Isolated free pages, handed out from the last fetched to the first (cc->freepages)."""

    stack: I64 = field(default_factory=lambda: _NO_PAGES)
    top: int = 0

    def push_all(self, pfns: I64) -> None:
        """Fetched pages, in the order in which they were found."""
        self.stack = np.concatenate([self.stack[: self.top], pfns])
        self.top = len(self.stack)

    def take(self, count: int) -> I64:
        """The next `count`, or as many as there are."""
        first = max(self.top - count, 0)
        taken = self.stack[first : self.top][::-1]
        self.top = first
        return taken

    def give_back(self, pfns: I64) -> None:
        """Pages taken last, unused: they are next again."""
        self.top += len(pfns)

    def rest(self) -> I64:
        return self.stack[: self.top]


@dataclass(slots=True)
class Trace:
    """What the kernel's tracepoints would say, if asked for: (kind, ...) tuples as in the records."""

    events: list[tuple[object, ...]] = field(default_factory=list)


class Compaction:
    """One run of compact_zone(). `step` until `done`; then `status`, `moves`, and the counters tell.

    grain None: a step is a batch. grain n: a step is a lock or a driver call for at most n pages, so that any
    interleaving of several runs on the same zone can be played.
    """

    def __init__(
        self,
        memory: Memory,
        zone: Zone,
        request: Request | None = None,
        *,
        rules: CompactionRules = RULES["6.1"],
        grain: int | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.memory = memory
        self.zone = zone
        self.request = request or Request()
        self.rules = rules
        self._grain = grain
        self._trace = trace
        self.status = Status.CONTINUE
        self.moves: list[tuple[I64, I64]] = []
        self.succeeded = 0
        self.failed = 0
        self.migrate_scanned = 0
        self.free_scanned = 0
        self._migratepages = _NO_PAGES
        self._free = FreePages()
        self._last_migrated_pfn = 0
        self._rescan = False
        self._iteration_start = 0
        self._scan: _Scan | None = None
        self._migration: Migration | None = None
        self._putback: Putback | None = None
        self._end_after_putback: Status | None = None
        self.whole_zone = self.request.whole_zone
        self._start()

    @property
    def done(self) -> bool:
        return self.status != Status.CONTINUE

    def run(self) -> Status:
        """All of it, nobody else in between."""
        while not self.done:
            self.step()
        return self.status

    def step(self) -> None:
        """The next piece of work."""
        if self._scan is not None:
            self._step_scan(self._scan)
        elif self._migration is not None:
            self._step_migration(self._migration)
        elif self._putback is not None:
            self._step_putback(self._putback)
        else:
            self._step_choose()

    # beginning and end

    def _start(self) -> None:
        zone, cache = self.zone, self.zone.cache
        last = (zone.end - 1) // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
        self._sync = self.request.mode != MigrateMode.ASYNC
        if self.whole_zone:
            self.migrate_pfn, self.free_pfn = zone.start, last
        else:
            self.migrate_pfn, self.free_pfn = cache.migrate_pfn[self._sync], cache.free_pfn
            if not zone.start <= self.free_pfn < zone.end:
                self.free_pfn = cache.free_pfn = last
            if not zone.start <= self.migrate_pfn < zone.end:
                self.migrate_pfn = zone.start
                cache.migrate_pfn = [zone.start, zone.start]
            self.whole_zone = self.migrate_pfn <= cache.init_migrate_pfn
        self._update_cached = not self._sync and cache.migrate_pfn[0] == cache.migrate_pfn[1]
        self._emit("begin", zone.start, self.migrate_pfn, self.free_pfn, zone.end, self._mode_name)

    def _finish(self, status: Status) -> None:
        """Give back the targets that were not used, and count."""
        self.status = status
        rest = self._free.rest()
        if len(rest):
            self.zone.free(rest)
            first = int(rest.max()) // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
            self.zone.cache.free_pfn = max(self.zone.cache.free_pfn, first)
            self._free = FreePages()
        self.memory.vmstat.compact_migrate_scanned += self.migrate_scanned
        self.memory.vmstat.compact_free_scanned += self.free_scanned
        zone = self.zone
        ends = (zone.start, self.migrate_pfn, self.free_pfn, zone.end)
        self._emit("end", *ends, self._mode_name, status.value)

    def _finished(self) -> Status:
        """compact_finished(): is there any reason to go on?"""
        if self.free_pfn >> PAGEBLOCK_ORDER <= self.migrate_pfn >> PAGEBLOCK_ORDER:
            cache = self.zone.cache
            cache.migrate_pfn = [cache.init_migrate_pfn] * 2
            cache.free_pfn = cache.init_free_pfn
            cache.blockskip_flush |= self.request.direct
            return Status.COMPLETE if self.whole_zone else Status.PARTIAL_SKIPPED
        order = self.request.order
        if order == WHOLE_ZONE_ORDER or self.migrate_pfn % PAGEBLOCK_PAGES:
            return Status.CONTINUE
        return Status.SUCCESS if self._suitable_block(order) else Status.CONTINUE

    def _suitable_block(self, order: int) -> bool:
        types = (self.request.migratetype,)
        if self.request.migratetype == MigrateType.MOVABLE or order >= PAGEBLOCK_ORDER // 2:
            types = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)
        return self.zone.has_block(order, types)

    # the migrate scanner

    def _step_choose(self) -> None:
        """Look whether to go on, and find the next pageblock to take pages from."""
        if (status := self._finished()) != Status.CONTINUE:
            self._finish(status)
            return
        self._iteration_start = self.migrate_pfn
        same = self._last_migrated_pfn >> PAGEBLOCK_ORDER == self.migrate_pfn >> PAGEBLOCK_ORDER
        self._rescan = self.rules.rest_of_pageblock and same
        low = self._next_source(self.migrate_pfn)
        if low is None:
            self._isolated_nothing()
            return
        end = (low // PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES
        self._scan = _Scan(low, end, low)

    def _next_source(self, low: int) -> int | None:
        """First pfn to scan from: skips pageblocks by their hints and types (isolate_migratepages)."""
        while (end := (low // PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES) <= self.free_pfn:
            aligned = low % PAGEBLOCK_PAGES == 0 or low == self.zone.start
            if not (aligned and self._hinted(low)):
                if self._suitable_source(low):
                    self.migrate_pfn = low
                    return low
                self._update_cached_migrate(end)
            low = self.migrate_pfn = end
        return None

    def _hinted(self, pfn: int) -> bool:
        """The pageblock had nothing to isolate lately, and that counts in this run."""
        return not self.request.ignore_skip_hint and bool(self.zone.pages.skip[pfn >> PAGEBLOCK_ORDER])

    def _suitable_source(self, pfn: int) -> bool:
        """suitable_migration_source(): async direct compaction keeps to pageblocks of the type asked for."""
        pages = self.zone.pages
        if pages.order[pfn] >= PAGEBLOCK_ORDER:
            return False
        if self.request.mode != MigrateMode.ASYNC or not self.request.direct:
            return True
        block = pages.pageblock_type[pfn >> PAGEBLOCK_ORDER]
        if self.request.migratetype == MigrateType.MOVABLE:
            return bool(block == MigrateType.MOVABLE)
        return bool(block == self.request.migratetype)

    def _step_scan(self, scan: _Scan) -> None:
        """Isolate the next pages of the pageblock; at its end, or with a full batch, migrate them."""
        if scan.asking is None:
            self._ask(scan)
            if scan.asking is None or self._grain is not None:
                return
        self._take_granted(scan, scan.asking)

    def _ask(self, scan: _Scan) -> None:
        if scan.low == scan.end:
            self._end_scan(scan)
            return
        mode = self.request.isolate_mode
        found = isolatable(self.zone.pages, scan.low, scan.end, mode)
        wanted = len(found) if self._rescan else COMPACT_CLUSTER_MAX - len(self._migratepages)
        chunk = found[: wanted if self._grain is None else min(wanted, self._grain)]
        stop = int(chunk[-1]) + 1 if len(chunk) else scan.end
        scan.scanned += steps(self.zone.pages, scan.low, stop)
        scan.low = stop
        if len(chunk) == 0:
            self._end_scan(scan)
            return
        scan.asking = Isolation(self.memory, chunk, mode)
        scan.asking.begin()

    def _take_granted(self, scan: _Scan, isolation: Isolation) -> None:
        isolation.finish()
        scan.asking = None
        granted = isolation.granted
        scan.isolated += len(granted)
        # the list is worked from the page added last
        self._migratepages = np.concatenate([granted[::-1], self._migratepages])
        if len(self._migratepages) >= COMPACT_CLUSTER_MAX and not self._rescan:
            self._end_scan(scan)

    def _end_scan(self, scan: _Scan) -> None:
        self._scan = None
        self.migrate_pfn = scan.low
        self.migrate_scanned += scan.scanned
        self.memory.vmstat.compact_isolated += scan.isolated
        if scan.low == scan.end and (not scan.isolated or self._rescan):
            if scan.start % PAGEBLOCK_PAGES == 0:
                self.zone.pages.skip[scan.start >> PAGEBLOCK_ORDER] = True
            self._update_cached_migrate(scan.end)
        self._emit("iso_m", scan.start, scan.low, scan.scanned, scan.isolated)
        if len(self._migratepages) == 0:
            self._isolated_nothing()
            return
        self._update_cached = False
        self._last_migrated_pfn = self._iteration_start
        self._wanted = len(self._migratepages)
        self._migration = Migration(
            self.memory,
            self._migratepages,
            self,
            self.request.mode,
            self.rules.migrate,
            self._grain,
            self.zone.free,
        )

    def _isolated_nothing(self) -> None:
        if self._update_cached:
            self.zone.cache.migrate_pfn[1] = self.zone.cache.migrate_pfn[0]

    def _update_cached_migrate(self, pfn: int) -> None:
        cached = self.zone.cache.migrate_pfn
        cached[0] = max(cached[0], pfn)
        if self._sync:
            cached[1] = max(cached[1], pfn)

    # migration

    def _step_migration(self, migration: Migration) -> None:
        if not migration.done:
            migration.step()
        if not migration.done:
            return
        self._migration = None
        self._migratepages = _NO_PAGES
        self.moves += migration.moves
        self.succeeded += migration.succeeded
        self.failed += migration.failed
        self._emit("mp", migration.succeeded, migration.failed, "MIGRATE_" + self.request.mode.name)
        self._emit("mig", migration.succeeded, self._wanted - migration.succeeded)
        if migration.error:
            self._after_failure(migration)

    def _after_failure(self, migration: Migration) -> None:
        """What is left goes back; a run without memory ends, unless the scanners met."""
        self._putback = Putback(self.memory, migration.left, self._grain)
        met = self.free_pfn >> PAGEBLOCK_ORDER <= self.migrate_pfn >> PAGEBLOCK_ORDER
        if migration.error == -errno.ENOMEM and not met:
            self._end_after_putback = Status.CONTENDED
        elif self.request.direct and self.request.mode == MigrateMode.ASYNC:
            size = 1 << self.request.order
            self.migrate_pfn = -(-self.migrate_pfn // size) * size
            self._last_migrated_pfn = 0

    def _step_putback(self, putback: Putback) -> None:
        putback.step()
        if not putback.done:
            return
        self._putback = None
        if self._end_after_putback is not None:
            self._finish(self._end_after_putback)

    # the free scanner

    def take(self, count: int) -> I64:
        """compaction_alloc(): targets for `count` pages; fetches new ones only if none is left."""
        if self._free.top == 0:
            self._isolate_freepages()
        return self._free.take(count)

    def give_back(self, pfns: I64) -> None:
        """compaction_free()."""
        self._free.give_back(pfns)

    def _isolate_freepages(self) -> None:
        """Fetch at least as many free pages as the batch has, pageblock by pageblock downwards."""
        start = self.free_pfn
        block = start // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
        lowest = (self.migrate_pfn // PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES
        stride = self._largest_stride if self.request.mode == MigrateMode.ASYNC else 1
        while block >= lowest:
            if self._suitable_target(block):
                end = min(block + PAGEBLOCK_PAGES, self.zone.end)
                before = self._free.top
                start = self._isolate_block(start, end, stride)
                if start == end:
                    self._update_pageblock_skip(block)
                if self._free.top >= self._wanted:
                    start = block - PAGEBLOCK_PAGES if start >= end else start
                    break
                if start < end:
                    break
                stride = 1 if self._free.top > before else min(self._largest_stride, stride << 1)
            block -= PAGEBLOCK_PAGES
            start = block
        self.free_pfn = start

    @property
    def _largest_stride(self) -> int:
        return self.rules.free_stride

    def _suitable_target(self, block: int) -> bool:
        """A MOVABLE pageblock that is not hinted, and does not start a free block of its own size."""
        pages = self.zone.pages
        if pages.pageblock_type[block >> PAGEBLOCK_ORDER] != MigrateType.MOVABLE or self._hinted(block):
            return False
        pages.merge(block, block + 1)
        return bool(pages.order[max(block, self.zone.start)] < PAGEBLOCK_ORDER)

    def _isolate_block(self, start: int, end: int, stride: int) -> int:
        """Take free blocks from start on until there are enough; where it stopped (isolate_freepages_block)."""
        heads = self.zone.heads(start, end)
        pages = self.zone.pages
        if stride > 1:
            heads = _on_stride(pages, heads, start, end, stride)
        sizes = np.int64(1) << pages.order[heads].astype(np.int64)
        total = np.cumsum(sizes)
        count = min(int(np.searchsorted(total, self._wanted - self._free.top)) + 1, len(heads))
        count, short = self._above_watermark(sizes[:count], total[:count])
        if short:
            stop = int(heads[count])
        elif count and self._free.top + total[count - 1] >= self._wanted:
            stop = int(heads[count - 1] + sizes[count - 1])
        else:
            stop = end
        taken = self._take_blocks(start, stop, heads[:count], sizes[:count], stride)
        self._free.push_all(taken)
        stop = min(stop, end)
        scanned = self._free_steps(start, stop, heads[:count], sizes[:count], stride)
        self.free_scanned += scanned
        self.memory.vmstat.compact_isolated += len(taken)
        self._emit("iso_f", start, stop, scanned, len(taken))
        return stop

    def _take_blocks(self, start: int, stop: int, heads: I64, sizes: I64, stride: int) -> I64:
        if stride == 1 and stop % PAGEBLOCK_PAGES and self.zone.pages.order[start] != TAIL:
            return self.zone.take(start, stop)
        spans = [self.zone.take(int(h), int(h + s)) for h, s in zip(heads, sizes, strict=True)]
        return np.concatenate(spans) if spans else _NO_PAGES

    def _above_watermark(self, sizes: I64, total: I64) -> tuple[int, bool]:
        """How many of the blocks may be taken, and whether the watermark forbids the next."""
        count = len(sizes)
        zone = self.zone
        if count == 0 or zone.free_pages - int(total[-1]) > zone.watermark_min + int(sizes.max()):
            return count, False
        fits = zone.free_pages - (total - sizes) > zone.watermark_min + sizes
        return (count, False) if fits.all() else (int(np.argmin(fits)), True)

    def _free_steps(self, start: int, stop: int, heads: I64, sizes: I64, stride: int) -> int:
        """Pages looked at: free blocks count whole, compound pages once."""
        if stride == 1:
            compound = self.zone.pages.compound[start:stop]
            inside = int(((1 << compound[compound > 0].astype(np.int64)) - 1).sum()) if compound.any() else 0
            return stop - start - inside
        steps_, position = 0, start
        for head, size in zip(heads.tolist(), sizes.tolist(), strict=True):
            steps_ += (head - position) // stride + size
            position = head + size - 1 + stride
        return steps_ + max(-(-(stop - position) // stride), 0)

    def _update_pageblock_skip(self, block: int) -> None:
        self.zone.pages.skip[block >> PAGEBLOCK_ORDER] = True
        self.zone.cache.free_pfn = min(self.zone.cache.free_pfn, block)

    # tracing

    @property
    def _mode_name(self) -> str:
        return "async" if self.request.mode == MigrateMode.ASYNC else "sync"

    def _emit(self, *event: object) -> None:
        if self._trace is not None:
            self._trace.events.append(event)


def steps(pages: PageMap, start: int, stop: int) -> int:
    """Pages that the migrate scanner looks at: free blocks and compound pages once each."""
    span = pages.order[start:stop]
    count = stop - start - int(np.count_nonzero(span == TAIL))
    if span[0] == TAIL:
        inside = span != TAIL
        count += int(np.argmax(inside)) if inside.any() else len(span)
    compound = pages.compound[start:stop]
    if compound.any():
        count -= int(((1 << compound[compound > 0].astype(np.int64)) - 1).sum())
    return count


def _on_stride(pages: PageMap, heads: I64, start: int, end: int, stride: int) -> I64:
    """Those of the free blocks that a scanner with this step lands on."""
    met = []
    position = start
    for head in heads.tolist():
        if head >= position and (head - position) % stride == 0:
            met.append(head)
            position = head + (1 << int(pages.order[head])) - 1 + stride
    return np.array(met, np.int64)
