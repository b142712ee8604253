"""Compaction of a zone (mm/compaction.c): sources from its bottom, targets from its top.

`Compaction` is one run of compact_zone(), as a state machine without any loop of its own: whoever drives it
decides what happens between two steps. Records of real kernels reproduce to the single move.
"""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.movable.migrate_pages import Migration
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import Isolation, MigrateMode, Putback
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType
from cluster.compaction.zone import fast_search
from cluster.compaction.zone.block_scan import BlockScan
from cluster.compaction.zone.compact_control import (
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
from cluster.compaction.zone.free_scanner import FreeScanner
from cluster.compaction.zone.predicted_batches import Sweep
from cluster.compaction.zone.predicted_sources import Ahead, look_ahead

_NO_PAGES: I64 = np.zeros(0, np.int64)
_AHEAD = 32 * PAGEBLOCK_PAGES  #: pages that a sweep looks at together
_ALL_TYPES = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)


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
        self.grain = grain
        self._trace = trace
        self._targets = FreeScanner(memory, self.control, trace)
        self._list = _NO_PAGES
        self._iteration_start = 0
        # pfn 0, in the kernel too: a run that begins in pageblock 0 takes it for half done
        self._last_migrated_pfn = 0
        self._rescan = False
        self._scan: BlockScan | None = None
        self._migration: Migration | None = None
        self._putback: Putback | None = None
        self._end_after_putback = False
        self._canceled = False
        self._sweep: Sweep | None = None
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
        return self._scan.locked if self._scan else _NO_PAGES

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
        if self._migration is not None and self._unobserved and self._migration.withdraw():
            self._migration = None
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
            self._scan.abandon()
            self._leave_scan(self._scan)
        if self._migration is not None:
            self._migration.abandon()
            self._end_migration(self._migration)
            self._list = self._migration.left
            self._migration = None
        left = self._list if self._putback is None else np.concatenate([self._putback.abandon(), self._list])
        self._putback, self._list = Putback(self.memory, left, self.grain), _NO_PAGES
        self._end_after_putback = True

    def _leave_scan(self, scan: BlockScan) -> None:
        """What it has isolated is to be migrated or put back."""
        self._scan, self._list = None, scan.list
        self.control.migrate_scanned += scan.scanned
        self.memory.vmstat.compact_isolated += scan.isolated

    def step(self) -> None:
        """The next piece of work."""
        if self._putback is not None:
            self._step_putback(self._putback)
        elif self._migration is not None:
            self._step_migration(self._migration)
        elif self._unobserved:
            self._step_sweep()
        elif self._scan is not None:
            self._step_scan(self._scan)
        else:
            self._step_choose()

    @property
    def _unobserved(self) -> bool:
        """Batches can go together: nobody looks at them one by one, and none of them ends the run."""
        request = self.request
        whole = request.order == WHOLE_ZONE_ORDER and request.good_enough is None and not request.optimistic
        return self.grain is None and whole and self._trace is None and self.memory.on_isolate is None

    def _step_sweep(self) -> None:
        """Batch after batch, as long as it is known what becomes of them."""
        until = self.zone.end if self._until is None else self._until
        sweep = self._sweep = Sweep(self.memory, self._targets, self.request)
        self._targets.begin_alone(lambda: self._carry_out(sweep, 1))
        begun = self._scan
        if self._scan is None and len(self._list):
            self._migrate()
        while not (self.done or self._migration or self._putback or sweep.full):
            if self.control.migrate_pfn >= until:
                break
            scan = self._scan
            if scan is None:
                if not self._sweep_ahead(sweep, until):
                    self._carry_out(sweep)
                    self._step_choose()
            # one begun before leaves its batch to the next step, if it ends beyond `until`
            elif (scan is begun and scan.end >= until) or not self._sweep_scan(sweep, scan):
                self._step_scan(scan)
            elif scan is begun:
                sweep.hurry()
        self._carry_out(sweep)
        self._targets.end_alone()
        self._sweep = None

    def _sweep_ahead(self, sweep: Sweep, until: int) -> bool:
        """The next batches become part of the sweep; False, and no change, if that is not foreseen."""
        c = self.control
        stop = block_end(min(until, c.migrate_pfn + _AHEAD) - 1, PAGEBLOCK_ORDER)
        stop = min(stop, pageblock_start(c.free_pfn))
        if stop <= c.migrate_pfn or self._canceled or self._hinted_source(c.migrate_pfn):
            return False
        ahead = look_ahead(self.memory, c.migrate_pfn, stop, self.request.isolate_mode, self.request.mode)
        if ahead is None:
            return False
        first, stop = 0, min(until, ahead.stop)
        while c.migrate_pfn < stop and block_end(c.migrate_pfn, PAGEBLOCK_ORDER) <= c.free_pfn:
            if sweep.full or self._migration is not None or self._hinted_source(c.migrate_pfn):
                break
            self._begin_iteration()
            first = self._sweep_batch(sweep, ahead, first, c.migrate_pfn, c.migrate_pfn)
        return True

    def _sweep_scan(self, sweep: Sweep, scan: BlockScan) -> bool:
        """The same with the next batch of a scan that has isolated nothing so far."""
        if not scan.untouched:
            return False
        ahead = look_ahead(self.memory, scan.low, scan.end, self.request.isolate_mode, self.request.mode)
        if ahead is None:
            self._carry_out(sweep)
            return False
        self._scan = None
        self.control.migrate_scanned += scan.scanned
        self._sweep_batch(sweep, ahead, 0, scan.start, scan.low)
        return True

    def _sweep_batch(self, sweep: Sweep, ahead: Ahead, first: int, start: int, low: int) -> int:
        """The batch from found[first] and `low` on, in a scan from `start`; where the next one begins."""
        c, end, last = self.control, block_end(low, PAGEBLOCK_ORDER), ahead.end_of(low)
        rescan, stop = self._rescan, end
        if not rescan and last - first >= COMPACT_CLUSTER_MAX:
            last = first + COMPACT_CLUSTER_MAX
            stop = int(ahead.found[last - 1]) + 1
        c.migrate_pfn = stop
        c.migrate_scanned += ahead.scanned(low, stop, c.free_pfn)
        self.memory.vmstat.skipped_isolated += ahead.isolated(low, stop)
        self.memory.vmstat.compact_isolated += last - first
        if stop == end and (rescan or first == last):
            self._scanned_in_vain(start, end)
        if first == last:
            self._isolated_nothing()
            return last
        self._update_cached = False
        self._last_migrated_pfn = self._iteration_start
        c.wanted = last - first
        if not sweep.add(*ahead.batch(first, last)):
            self._isolate_at_once(sweep, ahead.found[first:last])
        return last

    def _isolate_at_once(self, sweep: Sweep, pfns: I64) -> None:
        """A batch for which there are too few targets."""
        self._carry_out(sweep)
        isolation = Isolation(self.memory, pfns, self.request.isolate_mode)
        isolation.begin()
        isolation.finish()
        self._list = pfns[::-1]
        self._migration = self._new_migration()

    def _migrate(self) -> None:
        """What is isolated becomes part of the sweep, if that goes on, or a migration of its own."""
        goes_on = self._until is None or self.control.migrate_pfn < self._until
        if self._sweep is not None and goes_on and self._sweep.join(self._list):
            self._list = _NO_PAGES
        else:
            self._migration = self._new_migration()

    def _new_migration(self) -> Migration:
        rules, mode = self._rules.migrate, self.request.mode
        return Migration(self.memory, self._list, self._targets, mode, rules, self.grain, self.zone.free)

    def _carry_out(self, sweep: Sweep, most: int | None = None) -> int:
        """What the sweep has, or the first batches of it; pages moved."""
        old, new, failed = sweep.carry_out(most)
        if len(old):
            self.moves.append((old, new))
        self.succeeded += len(old)
        self.failed += failed
        return len(old)

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
        self._begin_iteration()
        low = self._next_source()
        if low is None:
            self._isolated_nothing()
        else:
            self._scan = BlockScan(self.memory, self.request, low, whole=self._rescan)

    def _begin_iteration(self) -> None:
        self._iteration_start = start = self.control.migrate_pfn
        same = self._last_migrated_pfn >> PAGEBLOCK_ORDER == start >> PAGEBLOCK_ORDER
        self._rescan = self._rules.rest_of_pageblock and same

    def _next_source(self) -> int | None:
        """First pfn to scan from: skips pageblocks by their hints and types (isolate_migratepages)."""
        c = self.control
        low = fast_search.find_migrateblock(c) if self._rules.fast_search else c.migrate_pfn
        found = low != c.migrate_pfn and c.fast_search_fail == 0
        while (end := block_end(low, PAGEBLOCK_ORDER)) <= c.free_pfn:
            if found or not self._hinted_source(low):
                if self._suitable_source(low):
                    c.migrate_pfn = low
                    return low
                self._update_cached_migrate(end)
            found = False
            low = c.migrate_pfn = end
        return None

    def _hinted_source(self, pfn: int) -> bool:
        return self.control.hinted(pfn) and (pfn % PAGEBLOCK_PAGES == 0 or pfn == self.zone.start)

    def _suitable_source(self, pfn: int) -> bool:
        """suitable_migration_source(): async direct compaction keeps to pageblocks of the type asked for."""
        if not self.request.optimistic:
            return True
        return bool(self.zone.pages.pageblock_type[pfn >> PAGEBLOCK_ORDER] == self.request.migratetype)

    def _step_scan(self, scan: BlockScan) -> None:
        """Isolate the next pages of the pageblock; at its end, or with a full batch, migrate them."""
        given_up = scan.step(self.grain)
        if len(given_up):
            self._putback = Putback(self.memory, given_up, self.grain)
        if scan.finished:
            self._end_scan(scan)

    def _end_scan(self, scan: BlockScan) -> None:
        self._leave_scan(scan)
        self.control.migrate_pfn = scan.low
        if scan.low == scan.end and (not scan.isolated or self._rescan):
            self._scanned_in_vain(scan.start, scan.end)
        self._emit("iso_m", scan.start, scan.low, scan.scanned, scan.isolated)
        if len(self._list) == 0:
            self._isolated_nothing()
            return
        self._update_cached = False
        self._last_migrated_pfn = self._iteration_start
        self.control.wanted = len(self._list)
        self._migrate()

    def _scanned_in_vain(self, start: int, end: int) -> None:
        """Nothing was isolated up to the end of the pageblock, or all there was."""
        if start % PAGEBLOCK_PAGES == 0:
            self.zone.pages.skip[start >> PAGEBLOCK_ORDER] = True
        self._update_cached_migrate(end)

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
