"""Memory that goes offline: blocks (offline_pages(), mm/memory_hotplug.c) and single pages."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import DEFAULT_RULES, CompactionRules
from cluster.compaction.movable.isolate_pageblocks import undo_isolate_pageblocks
from cluster.compaction.movable.isolation import Isolation, Putback
from cluster.compaction.movable.migrate_pages import migrate_pages
from cluster.compaction.movable.page_migration import PageMigration
from cluster.compaction.movable.page_movable import isolatable
from cluster.compaction.movable.targets import AllocatedTargets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import USED
from cluster.compaction.zone.contig_range import IsolatedRange

_NO_PAGES: Pfns = np.zeros(0, np.int64)
_MODE = IsolateMode.UNEVICTABLE


class Offline(IsolatedRange):
    """Empties pages start..end-1, round after round, until no page in them looks movable any more.

    `step` until `done`; `error` 0: the range is offline. A page that does not move is tried again for as long
    as the caller goes on; `cancel` ends that, as a signal does.
    """

    rounds = 0  #: rounds made so far
    _canceled = False
    _isolated = _NO_PAGES
    _work: Isolation | PageMigration | Putback | None = None

    def run(self, max_rounds: int) -> int:
        """Do at most `max_rounds` rounds, without other compactors in between; return the error."""
        while not self.done:
            if self.rounds > max_rounds:
                self.cancel()
            self.step()
        return self.error

    def cancel(self) -> None:
        """Begin no further round; what is isolated is still moved or put back."""
        self._canceled = True

    def step(self) -> None:
        """Do the next piece of work."""
        work = self._work
        if isinstance(work, Isolation):
            self._take_granted(work)
        elif isinstance(work, PageMigration):
            self._step_migration(work)
        elif isinstance(work, Putback):
            work.step()
            self._work = None if work.done else work
        else:
            self._isolate()

    def _isolate(self) -> None:
        """Isolate all isolatable pages of the range, lowest first (do_migrate_range)."""
        pages = self.memory.pages
        if self._low == self.start:
            if self._canceled or not len(isolatable(pages, self.start, self.end, _MODE)):
                self._finish()
                return
            self.rounds += 1
        chunk = isolatable(pages, self._low, self.end, _MODE)[: self._grain]
        self._low = int(chunk[-1]) + 1 if len(chunk) and self._grain else self.end
        if len(chunk):
            # the scan holds a reference of its own meanwhile
            self._work = Isolation(self.memory, chunk, _MODE, held=1)
            self._work.begin()
            if self._grain is None:
                self._take_granted(self._work)
        if self._low == self.end and not isinstance(self._work, Isolation):
            self._migrate()

    def _take_granted(self, isolation: Isolation) -> None:
        isolation.finish()
        self._isolated = np.concatenate([self._isolated, isolation.granted])
        self._work = None
        if self._low == self.end:
            self._migrate()

    def _migrate(self) -> None:
        pfns, self._isolated = self._isolated, _NO_PAGES
        self._low = self.start
        if self._rules.offline_highest_first:
            pfns = pfns[::-1]
        if len(pfns):
            self._work = self._migration_of(pfns)

    def _step_migration(self, migration: PageMigration) -> None:
        if not migration.done:
            migration.step()
        if migration.done:
            self.moves += migration.moves
            self._work = Putback(self.memory, migration.left, self._grain) if len(migration.left) else None

    def _finish(self) -> None:
        self.done = True
        if self._all_free():
            take_offline(self.memory, self.start, self.end)
            return
        self.error = -errno.EINTR if self._canceled else -errno.EBUSY
        undo_isolate_pageblocks(self.memory, self.start, self._types, self._rules)


def take_offline(memory: Memory, start: int, end: int) -> None:
    """Make free pages start..end-1, whole pageblocks, holes."""
    memory.take_range(start, end)
    memory.pages.mark_hole(start, end)


def soft_offline_page(memory: Memory, pfn: int, *, rules: CompactionRules = DEFAULT_RULES) -> int:
    """Move one page away for good; return 0, or -EBUSY if it does not move (soft_offline_page)."""
    pages = memory.pages
    page = np.array([pfn], np.int64)
    isolation = Isolation(memory, page, _MODE, held=1)
    isolation.begin()
    isolation.finish()
    if len(isolation.granted) == 0:
        return -errno.EBUSY
    migration = migrate_pages(memory, page, AllocatedTargets(memory), MigrateMode.SYNC, rules)
    migration.run()
    Putback(memory, migration.left).run()
    if migration.error:
        return -errno.EBUSY
    if pages.order[pfn] != USED:
        memory.poison(pfn)
    return 0
