"""A run of compact_zone() step by step (mm/compaction.c): sources from the bottom, targets from the top."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import DEFAULT_RULES, CompactionRules
from cluster.compaction.movable.isolation import Putback
from cluster.compaction.movable.migrate_pages import migrate_pages
from cluster.compaction.movable.page_migration import PageMigration
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType
from cluster.compaction.zone.block_scan import BlockScan
from cluster.compaction.zone.compact_control import (
    Control,
    Request,
    Status,
    Trace,
    block_end,
    pageblock_start,
)
from cluster.compaction.zone.free_scanner import FreeScanner
from cluster.compaction.zone.migrate_scanner import MigrateScanner

NO_PAGES: Pfns = np.zeros(0, np.int64)


class CompactionSteps:
    """A compaction that makes one step at a time: `Compaction` without what it does many steps at once.

    A step goes on with what is under way, in this order: a putback, a migration, the scan of a pageblock. If
    nothing is, it looks whether to go on, and for the next pageblock. None of these waits in a loop.
    """

    def __init__(
        self,
        memory: Memory,
        zone: Zone,
        request: Request | None = None,
        *,
        rules: CompactionRules = DEFAULT_RULES,
        grain: int | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.memory = memory
        self.zone = zone
        self.request = request or Request()
        self.control = Control(zone, self.request, rules)
        self.status = Status.CONTINUE
        self.moves: list[tuple[Pfns, Pfns]] = []
        self.succeeded = 0
        self.failed = 0
        self.grain = grain
        self._rules = rules
        self._trace = trace
        self.control.start()
        self._sources = MigrateScanner(self.control)
        self._targets = FreeScanner(memory, self.control, trace)
        self._isolated = NO_PAGES  #: pages to migrate next
        self._scan: BlockScan | None = None
        self._migration: PageMigration | None = None
        self._putback: Putback | None = None
        self._end_after_putback = False
        self._canceled = False
        self._migrated = False  #: in this iteration
        self.captured: int | None = None  #: the block that was asked for, taken as soon as it was free
        self._emit_state("begin")

    @property
    def done(self) -> bool:
        return self.status != Status.CONTINUE

    @property
    def scanned(self) -> int:
        """Pages that both scanners have looked at so far."""
        return self.control.migrate_scanned + self.control.free_scanned

    @property
    def waiting(self) -> bool:
        """Return whether the next step needs a page that another compactor has locked."""
        work = self._putback or self._migration
        return work is not None and work.waiting

    @property
    def isolating(self) -> Pfns:
        """Pages locked by this run while their driver decides whether to let them go."""
        return self._scan.locked if self._scan else NO_PAGES

    @property
    def migrating(self) -> Pfns:
        """Pages locked by this run while their driver moves them."""
        return self._migration.locked if self._migration else NO_PAGES

    def run(self) -> Status:
        """Do all of it, without other compactors in between."""
        while not self.done:
            self.step()
        return self.status

    def cancel(self) -> None:
        """End as soon as what is isolated is moved or put back."""
        self._canceled = True

    def step(self) -> None:
        """Do the next piece of work."""
        if self._captures:
            self.zone.capture, self.zone.captured = self.request.order, None
        self._do_step()
        if self._captures:
            self._note_captured()
            self.zone.capture = None

    @property
    def _captures(self) -> bool:
        """Return whether the run takes the first block of its order that comes into being."""
        request = self.request
        fits = request.order >= PAGEBLOCK_ORDER or request.migratetype == MigrateType.MOVABLE
        return request.direct and self.captured is None and self.zone.lists is not None and fits

    def _note_captured(self) -> None:
        if self.zone.captured is not None:
            self.captured, self.zone.captured = self.zone.captured, None

    def _do_step(self) -> None:
        if self._putback is not None:
            self._step_putback(self._putback)
        elif self._migration is not None:
            self._step_migration(self._migration)
        elif self._scan is not None:
            self._step_scan(self._scan)
        else:
            self._choose_block()

    # the scan of a pageblock

    def _choose_block(self) -> None:
        """Look whether to go on, and find the next pageblock to take pages from."""
        if not self._sources.rest_is_next and (status := self._end_iteration()) != Status.CONTINUE:
            self._finish(status)
            return
        self._sources.begin_iteration()
        low = self._sources.next_pfn()
        if low is not None and low % PAGEBLOCK_PAGES == 0 and self.control.hinted(low):
            self._sources.gave_up(block_end(low, PAGEBLOCK_ORDER))
            low = None
        if low is None:
            self._sources.isolated_nothing()
        else:
            whole = self._sources.rescan
            self._scan = BlockScan(self.memory, self.request, low, self._rules, whole=whole)

    def _end_iteration(self) -> Status:
        """Return whether to go on, after a look at what the last iteration has freed."""
        migrated, self._migrated = self._migrated, False
        before_drain = self._rules.captured_before_drain
        if before_drain and migrated and self.captured is not None:
            return Status.SUCCESS
        self._sources.drain()
        self._note_captured()
        if not before_drain and self.captured is not None:
            return Status.SUCCESS
        if self.failed > self.zone.end - self.zone.start and self.control.searches:
            return Status.ENDLESS
        return self.control.finished(canceled=self._canceled)

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
        if scan.met_lru:
            self._sources.met_lru(scan.start)
        if scan.low == scan.end and (not scan.isolated or self._sources.rescan):
            self._sources.exhausted(scan.start, scan.end)
        self._emit("iso_m", scan.start, scan.low, scan.scanned, scan.isolated)
        if len(self._isolated) == 0:
            self._sources.isolated_nothing()
            return
        self._sources.isolated_some(scan.isolated)
        self._migrate()

    def _leave_scan(self, scan: BlockScan) -> None:
        """Take over what the scan has isolated."""
        self._scan, self._isolated = None, scan.list
        self.control.migrate_scanned += scan.scanned
        self.memory.vmstat.compact_isolated += scan.isolated

    # migration and putback

    def _migrate(self) -> None:
        """Begin to migrate what is isolated."""
        rules, mode = self._rules, self.request.mode
        self._migration = migrate_pages(
            self.memory, self._isolated, self._targets, mode, rules, self.grain, self.zone.free
        )

    def _step_migration(self, migration: PageMigration) -> None:
        migration.step()
        if not migration.done:
            return
        self._migration = None
        self._migrated = True
        self._isolated = NO_PAGES
        self._end_migration(migration)
        if migration.error:
            self._after_failure(migration)

    def _end_migration(self, migration: PageMigration) -> None:
        self.moves += migration.moves
        self.succeeded += migration.succeeded
        self.failed += migration.failed
        self._emit("mp", migration.succeeded, migration.failed, "MIGRATE_" + self.request.mode.name)
        self._emit("mig", migration.succeeded, self.control.wanted - migration.succeeded)

    def _after_failure(self, migration: PageMigration) -> None:
        """Put back what is left; end a run without memory, unless the scanners met."""
        self._putback = Putback(self.memory, migration.left, self.grain)
        if migration.error == -errno.ENOMEM and not self.control.scanners_met():
            self._end_after_putback = True
        else:
            self._sources.leave_block(self.request.order)

    def _step_putback(self, putback: Putback) -> None:
        putback.step()
        if not putback.done:
            return
        self._putback = None
        if self._end_after_putback:
            self._finish(Status.CONTENDED)

    # the end

    def _finish(self, status: Status) -> None:
        """Give back the targets that were not used, and count."""
        c, zone = self.control, self.zone
        self.status = status if self.captured is None else Status.SUCCESS
        rest = self._targets.drain()
        if len(rest):
            zone.free(rest[::-1])
            zone.cache.free_pfn = max(zone.cache.free_pfn, pageblock_start(int(rest.max())))
        self.memory.vmstat.compact_migrate_scanned += c.migrate_scanned
        self.memory.vmstat.compact_free_scanned += c.free_scanned
        self._emit_state("end", status.value)

    def _emit_state(self, what: str, *status: str) -> None:
        c, zone = self.control, self.zone
        mode = "async" if self.request.mode == MigrateMode.ASYNC else "sync"
        self._emit(what, zone.start, c.migrate_pfn, c.free_pfn, zone.end, mode, *status)

    def _emit(self, *event: object) -> None:
        if self._trace is not None:
            self._trace.emit(*event)
