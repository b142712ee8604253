"""Compaction of a zone (mm/compaction.c): sources from its bottom, targets from its top.

`Compaction` is one run of compact_zone(), as a state machine without any loop of its own: whoever drives it
decides what happens between two steps. Records of real kernels reproduce to the single move.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np

from cluster.migration import fast_search
from cluster.migration.buddy import Zone
from cluster.migration.control import (
    COMPACT_CLUSTER_MAX,
    RULES,
    WHOLE_ZONE_ORDER,
    CompactionRules,
    Control,
    Request,
    Status,
    Trace,
    block_end,
    pageblock_start,
)
from cluster.migration.foresight import foresee
from cluster.migration.free_scanner import FreeScanner
from cluster.migration.memory import Memory
from cluster.migration.migrate import Migration
from cluster.migration.movable import Isolation, MigrateMode, Putback, isolatable, isolated, still_movable
from cluster.migration.pages import (
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PG_LOCKED,
    TAIL,
    USED,
    MigrateType,
    PageMap,
)
from cluster.migration.sweep import Sweep
from cluster.words import I64

_NO_PAGES: I64 = np.zeros(0, np.int64)
_ALL_TYPES = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)


@dataclass(slots=True)
class _Scan:
    """The migrate scanner inside one pageblock (isolate_migratepages_block)."""

    start: int
    low: int
    end: int
    scanned: int = 0
    isolated: int = 0
    peeked: I64 | None = None  #: pages that looked movable in the last step
    asking: Isolation | None = None
    fails_at: int | None = None  #: optimistic: the next page that cannot be isolated


@dataclass(slots=True)
class _Ahead:
    """Pages from `low` to the end of a pageblock that look movable, and what is foreseen of them."""

    low: int
    found: I64
    again: I64


class Compaction:
    """One run of compact_zone(). `step` until `done`; then `status`, `moves`, and the counters tell.

    grain None: a step is a batch. grain n: a step is a lock or a driver call for at most n pages, so that any
    interleaving of several runs on the same zone can be played. A step in which a page to migrate or put back
    is locked by someone else, and has to be waited for, changes nothing: the run is `waiting`.
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
        self.control = Control(zone, self.request, rules)
        self.status = Status.CONTINUE
        self.moves: list[tuple[I64, I64]] = []
        self.succeeded = 0
        self.failed = 0
        self._rules = rules
        self._isolate_mode = self.request.isolate_mode
        self.grain = grain
        self._trace = trace
        self._targets = FreeScanner(memory, self.control, trace)
        self._list = _NO_PAGES
        self._iteration_start = 0
        # pfn 0, in the kernel too: a run that begins in pageblock 0 takes it for half done
        self._last_migrated_pfn = 0
        self._rescan = False
        self._scan: _Scan | None = None
        self._migration: Migration | None = None
        self._putback: Putback | None = None
        self._end_after_putback = False
        self._canceled = False
        self._sweep: Sweep | None = None
        self._ahead: _Ahead | None = None
        self._until: int | None = None
        self._start()

    @property
    def done(self) -> bool:
        return self.status != Status.CONTINUE

    @property
    def scanned(self) -> int:
        """Pages that both scanners have looked at so far."""
        return self.control.migrate_scanned + self.control.free_scanned

    @property
    def waiting(self) -> bool:
        """The next step needs a page that someone else has locked."""
        work = self._putback or self._migration
        return work is not None and work.waiting

    @property
    def isolating(self) -> I64:
        """Pages locked by this run while their driver decides whether to let them go."""
        return self._scan.asking.locked if self._scan and self._scan.asking else _NO_PAGES

    @property
    def migrating(self) -> I64:
        """Pages locked by this run while their driver moves them."""
        return self._migration.locked if self._migration else _NO_PAGES

    def run(self) -> Status:
        """All of it, nobody else in between."""
        while not self.done:
            self.step()
        return self.status

    def cancel(self) -> None:
        """End as soon as what is isolated is moved or put back."""
        self._canceled = True

    def advance(self, pages: int) -> None:
        """Step until the migrate scanner is so many pages further, or a lock has to be waited for.

        Nobody comes in between, so that steps are as large as they can be.
        """
        grain, self._until = self.grain, self.control.migrate_pfn + pages
        self._set_grain(None)
        while not self.done and self.control.migrate_pfn < self._until:
            self.step()
            if self.waiting:
                break
        self._set_grain(grain)
        self._until = None

    def _set_grain(self, grain: int | None) -> None:
        self.grain = grain
        if self._migration is not None:
            self._migration.grain = grain

    def abandon(self) -> None:
        """Nothing more is moved. What is isolated is put back by the steps from here on."""
        if self.done:
            return
        if self._scan is not None:
            self._abandon_scan(self._scan)
        if self._migration is not None:
            self._migration.abandon()
            self._end_migration(self._migration)
            self._list = self._migration.left
            self._migration = None
        left = self._list if self._putback is None else np.concatenate([self._putback.abandon(), self._list])
        self._putback, self._list = Putback(self.memory, left, self.grain), _NO_PAGES
        self._end_after_putback = True

    def _abandon_scan(self, scan: _Scan) -> None:
        if scan.asking is not None:
            scan.asking.undo()
        self._scan = None
        self.control.migrate_scanned += scan.scanned
        self.memory.vmstat.compact_isolated += scan.isolated

    def step(self) -> None:
        """The next piece of work."""
        if self._putback is not None:
            self._step_putback(self._putback)
        elif self._migration is not None:
            self._step_migration(self._migration)
        elif self._scan is not None:
            self._step_scan(self._scan)
        elif self._unobserved:
            self._step_sweep()
        else:
            self._step_choose()

    @property
    def _unobserved(self) -> bool:
        """Batches can go together: nobody looks at them one by one, and none of them ends the run."""
        whole = self.request.order == WHOLE_ZONE_ORDER and self.request.good_enough is None
        return self.grain is None and whole and self._trace is None and self.memory.on_isolate is None

    def _step_sweep(self) -> None:
        """Batch after batch, as long as it is known what becomes of them."""
        sweep = self._sweep = Sweep(self.memory, self._targets, self.request)
        until = self.zone.end if self._until is None else self._until
        while not (self.done or self._migration or self._putback or sweep.full):
            if self.control.migrate_pfn >= until:
                break
            if self._scan is None:
                self._step_choose()
            else:
                self._step_scan(self._scan)
        self._carry_out(sweep)
        self._sweep = self._ahead = None

    def _carry_out(self, sweep: Sweep) -> None:
        old, new, failed = sweep.carry_out()
        if len(old):
            self.moves.append((old, new))
        self.succeeded += len(old)
        self.failed += failed

    # beginning and end

    def _start(self) -> None:
        c, zone, cache = self.control, self.zone, self.zone.cache
        zone.merge()
        last = pageblock_start(zone.end - 1)
        self._sync = self.request.mode != MigrateMode.ASYNC
        c.migrate_pfn, c.free_pfn, c.whole_zone = zone.start, last, True
        if not self.request.whole_zone:
            c.migrate_pfn, c.free_pfn = cache.migrate_pfn[self._sync], cache.free_pfn
            if not zone.start <= c.free_pfn < zone.end:
                c.free_pfn = cache.free_pfn = last
            if not zone.start <= c.migrate_pfn < zone.end:
                c.migrate_pfn = zone.start
                cache.migrate_pfn = [zone.start, zone.start]
            c.whole_zone = c.migrate_pfn <= cache.init_migrate_pfn
        self._update_cached = not self._sync and cache.migrate_pfn[0] == cache.migrate_pfn[1]
        self._emit("begin", zone.start, c.migrate_pfn, c.free_pfn, zone.end, self._mode_name)

    def _finish(self, status: Status) -> None:
        """Give back the targets that were not used, and count."""
        c, zone = self.control, self.zone
        self.status = status
        rest = self._targets.drain()
        if len(rest):
            zone.free(rest)
            zone.cache.free_pfn = max(zone.cache.free_pfn, pageblock_start(int(rest.max())))
        self.memory.vmstat.compact_migrate_scanned += c.migrate_scanned
        self.memory.vmstat.compact_free_scanned += c.free_scanned
        self._emit("end", zone.start, c.migrate_pfn, c.free_pfn, zone.end, self._mode_name, status.value)

    def _finished(self) -> Status:
        """compact_finished(): is there any reason to go on?"""
        c, cache, order = self.control, self.zone.cache, self.request.order
        if c.scanners_met():
            cache.migrate_pfn = [cache.init_migrate_pfn] * 2
            cache.free_pfn = cache.init_free_pfn
            cache.blockskip_flush |= self.request.direct
            return Status.COMPLETE if c.whole_zone else Status.PARTIAL_SKIPPED
        if self._canceled:
            return Status.CONTENDED
        if self.request.good_enough is not None:
            reached = self.zone.fragmentation_score() <= self.request.good_enough
            return Status.SUCCESS if reached else Status.CONTINUE
        if order == WHOLE_ZONE_ORDER or c.migrate_pfn % PAGEBLOCK_PAGES:
            return Status.CONTINUE
        stealing = self.request.migratetype == MigrateType.MOVABLE or order >= PAGEBLOCK_ORDER // 2
        types = _ALL_TYPES if stealing else (self.request.migratetype,)
        return Status.SUCCESS if self.zone.has_block(order, types) else Status.CONTINUE

    # the migrate scanner

    def _step_choose(self) -> None:
        """Look whether to go on, and find the next pageblock to take pages from."""
        if (status := self._finished()) != Status.CONTINUE:
            self._finish(status)
            return
        c = self.control
        self._iteration_start = c.migrate_pfn
        same = self._last_migrated_pfn >> PAGEBLOCK_ORDER == c.migrate_pfn >> PAGEBLOCK_ORDER
        self._rescan = self._rules.rest_of_pageblock and same
        low = self._next_source()
        if low is None:
            self._isolated_nothing()
        else:
            self._scan = _Scan(low, low, block_end(low, PAGEBLOCK_ORDER))

    def _next_source(self) -> int | None:
        """First pfn to scan from: skips pageblocks by their hints and types (isolate_migratepages)."""
        c = self.control
        low = fast_search.find_migrateblock(c) if self._rules.fast_search else c.migrate_pfn
        found = low != c.migrate_pfn and c.fast_search_fail == 0
        while (end := block_end(low, PAGEBLOCK_ORDER)) <= c.free_pfn:
            aligned = low % PAGEBLOCK_PAGES == 0 or low == self.zone.start
            if found or not (aligned and c.hinted(low)):
                if self._suitable_source(low):
                    c.migrate_pfn = low
                    return low
                self._update_cached_migrate(end)
            found = False
            low = c.migrate_pfn = end
        return None

    def _suitable_source(self, pfn: int) -> bool:
        """suitable_migration_source(): async direct compaction keeps to pageblocks of the type asked for."""
        if not self.request.optimistic:
            return True
        return bool(self.zone.pages.pageblock_type[pfn >> PAGEBLOCK_ORDER] == self.request.migratetype)

    def _step_scan(self, scan: _Scan) -> None:
        """Isolate the next pages of the pageblock; at its end, or with a full batch, migrate them."""
        if scan.asking is not None:
            self._take_granted(scan, scan.asking)
        elif scan.peeked is not None:
            self._lock(scan, scan.peeked)
        elif scan.low == scan.end:
            self._end_scan(scan)
        else:
            self._peek(scan)

    def _peek(self, scan: _Scan) -> None:
        """The next pages that look movable; without any, pass to the end of the block or pageblock."""
        pages, mode = self.zone.pages, self._isolate_mode
        end, scan.fails_at = scan.end, None
        if self.request.optimistic:
            end = min(block_end(scan.low, self.request.order), end)
            scan.fails_at = _first_failing(pages, scan.low, end, isolatable(pages, scan.low, end, mode))
        if self._sweep is not None and self._foreseen(scan, self._sweep):
            return
        found = isolatable(pages, scan.low, end if scan.fails_at is None else scan.fails_at, mode)
        wanted = self._wanted(found)
        chunk = found[: wanted if self.grain is None else min(wanted, self.grain)]
        if len(chunk) == 0:
            self._pass_over(scan, end)
            return
        self._advance(scan, int(chunk[-1]) + 1)
        scan.peeked = chunk
        if self.grain is None:
            self._take_granted(scan, self._lock(scan, chunk))

    def _wanted(self, found: I64) -> int:
        return len(found) if self._rescan else COMPACT_CLUSTER_MAX - len(self._list)

    def _lock(self, scan: _Scan, chunk: I64) -> Isolation:
        """Others may have isolated, moved or freed some of the pages since they were looked at."""
        scan.peeked = None
        pfns = still_movable(self.zone.pages, chunk)
        isolation = scan.asking = Isolation(self.memory, pfns, self._isolate_mode)
        isolation.begin()
        return isolation

    def _foreseen(self, scan: _Scan, sweep: Sweep) -> bool:
        """The next batch becomes part of the sweep, if it is known what becomes of it."""
        ahead = self._look_ahead(scan)
        if ahead is None:
            self._carry_out(sweep)
            return False
        wanted = self._wanted(ahead.found)
        batch, again = ahead.found[:wanted][::-1], ahead.again[:wanted][::-1]
        self._ahead = None
        if len(batch) == wanted and not self._rescan:
            self._advance(scan, int(batch[0]) + 1)
            if scan.low < scan.end:
                self._ahead = _Ahead(scan.low, ahead.found[wanted:], ahead.again[wanted:])
        else:
            self._advance(scan, scan.end)
        scan.isolated += len(batch)
        self._list = batch
        self._end_scan(scan, again)
        return True

    def _look_ahead(self, scan: _Scan) -> _Ahead | None:
        """What there is in the rest of the pageblock, if all of it is foreseen."""
        pages, ahead = self.zone.pages, self._ahead
        if len(self._list):
            return None
        if ahead is not None and ahead.low == scan.low:
            return ahead
        found = isolatable(pages, scan.low, scan.end, self._isolate_mode)
        if len(found) == 0:
            return _Ahead(scan.low, found, found)
        if pages.any_flag(found, PG_LOCKED):
            return None
        again = foresee(self.memory, found, self.request.mode)
        return None if again is None else _Ahead(scan.low, found, again)

    def _advance(self, scan: _Scan, stop: int) -> None:
        scan.scanned += steps(self.zone.pages, scan.low, stop)
        self.memory.vmstat.skipped_isolated += isolated(self.zone.pages, scan.low, stop)
        scan.low = stop

    def _pass_over(self, scan: _Scan, end: int) -> None:
        if scan.fails_at is not None:
            self._advance(scan, scan.fails_at + 1)
            self._give_up_block(scan)
            return
        self._advance(scan, end)
        if self.request.optimistic and scan.isolated:
            self._end_scan(scan)

    def _give_up_block(self, scan: _Scan) -> None:
        """Async direct compaction met a page that fails: the aligned block is of no use any more."""
        scan.low = min(block_end(scan.low - 1, self.request.order), scan.end)
        scan.isolated = 0
        if len(self._list):
            self._putback = Putback(self.memory, self._list, self.grain)
            self._list = _NO_PAGES

    def _take_granted(self, scan: _Scan, isolation: Isolation) -> None:
        isolation.finish()
        scan.asking = None
        granted = isolation.granted
        scan.isolated += len(granted)
        # the list is worked from the page added last
        self._list = np.concatenate([granted[::-1], self._list]) if len(self._list) else granted[::-1]
        if len(granted) < len(isolation.asked) and self.request.optimistic:
            self._give_up_block(scan)
        elif len(self._list) >= COMPACT_CLUSTER_MAX and not self._rescan:
            self._end_scan(scan)

    def _end_scan(self, scan: _Scan, again: I64 | None = None) -> None:
        c = self.control
        self._scan = None
        c.migrate_pfn = scan.low
        c.migrate_scanned += scan.scanned
        self.memory.vmstat.compact_isolated += scan.isolated
        if scan.low == scan.end and (not scan.isolated or self._rescan):
            if scan.start % PAGEBLOCK_PAGES == 0:
                self.zone.pages.skip[scan.start >> PAGEBLOCK_ORDER] = True
            self._update_cached_migrate(scan.end)
        self._emit("iso_m", scan.start, scan.low, scan.scanned, scan.isolated)
        if len(self._list) == 0:
            self._isolated_nothing()
            return
        self._update_cached = False
        self._last_migrated_pfn = self._iteration_start
        c.wanted = len(self._list)
        if again is not None and self._sweep is not None and self._plan(self._sweep, again):
            return
        rules, mode = self._rules.migrate, self.request.mode
        self._migration = Migration(
            self.memory, self._list, self._targets, mode, rules, self.grain, self.zone.free
        )

    def _plan(self, sweep: Sweep, again: I64) -> bool:
        """Let the sweep have the batch; without enough targets, isolate it and go on step by step."""
        if sweep.add(self._list, again):
            self._list = _NO_PAGES
            return True
        self._carry_out(sweep)
        isolation = Isolation(self.memory, self._list[::-1], self._isolate_mode)
        isolation.begin()
        isolation.finish()
        return False

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
        migration.step()
        if not migration.done:
            return
        self._migration = None
        self._list = _NO_PAGES
        self._end_migration(migration)
        if migration.error:
            self._after_failure(migration)

    def _end_migration(self, migration: Migration) -> None:
        self.moves += migration.moves
        self.succeeded += migration.succeeded
        self.failed += migration.failed
        self._emit("mp", migration.succeeded, migration.failed, "MIGRATE_" + self.request.mode.name)
        self._emit("mig", migration.succeeded, self.control.wanted - migration.succeeded)

    def _after_failure(self, migration: Migration) -> None:
        """What is left goes back; a run without memory ends, unless the scanners met."""
        c = self.control
        self._putback = Putback(self.memory, migration.left, self.grain)
        if migration.error == -errno.ENOMEM and not c.scanners_met():
            self._end_after_putback = True
        elif self.request.optimistic:
            c.migrate_pfn = block_end(c.migrate_pfn - 1, self.request.order)
            self._last_migrated_pfn = 0

    def _step_putback(self, putback: Putback) -> None:
        putback.step()
        if not putback.done:
            return
        self._putback = None
        if self._end_after_putback:
            self._finish(Status.CONTENDED)

    # tracing

    @property
    def _mode_name(self) -> str:
        return "async" if self.request.mode == MigrateMode.ASYNC else "sync"

    def _emit(self, *event: object) -> None:
        if self._trace is not None:
            self._trace.emit(*event)


def steps(pages: PageMap, start: int, stop: int) -> int:
    """Pages that the migrate scanner looks at: free blocks once each."""
    span = pages.order[start:stop]
    count = stop - start - int(np.count_nonzero(span == TAIL))
    if span[0] == TAIL:
        inside = span != TAIL
        count += int(np.argmax(inside)) if inside.any() else len(span)
    return count


def _first_failing(pages: PageMap, start: int, end: int, movable: I64) -> int | None:
    """The first used page that does not look movable, if any."""
    fails = pages.order[start:end] == USED
    fails[movable - start] = False
    return int(np.argmax(fails)) + start if fails.any() else None
