"""alloc_contig_range(): free a range of pages by moving the pages in it away (mm/page_alloc.c)."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import DEFAULT_RULES, CompactionRules
from cluster.compaction.movable.isolate_pageblocks import isolate_pageblocks, undo_isolate_pageblocks
from cluster.compaction.movable.isolation import Isolation, Putback
from cluster.compaction.movable.migrate_pages import migrate_pages
from cluster.compaction.movable.page_migration import PageMigration
from cluster.compaction.movable.page_movable import isolatable
from cluster.compaction.movable.targets import AllocatedTargets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES, USED
from cluster.compaction.zone.compact_control import COMPACT_CLUSTER_MAX

MAX_ROUNDS = 5  #: migrate_pages() calls for a batch of which some pages stay
_NO_PAGES: Pfns = np.zeros(0, np.int64)


class IsolatedRange:
    """Pages start..end-1, from whose pageblocks nothing is allocated while their pages move away.

    Raises ValueError if they are not whole pageblocks. `done` and `error` -EBUSY from the beginning if a page
    in them can never move. `moves` are (sources, targets). grain as in `Compaction`.
    """

    def __init__(
        self,
        memory: Memory,
        start: int,
        end: int,
        *,
        rules: CompactionRules = DEFAULT_RULES,
        grain: int | None = None,
    ) -> None:
        if start % PAGEBLOCK_PAGES or end % PAGEBLOCK_PAGES:
            raise ValueError(f"pages {start}..{end} are not whole pageblocks")
        self.memory = memory
        self.start, self.end = start, end
        self.moves: list[tuple[Pfns, Pfns]] = []
        self._rules = rules
        self._grain = grain
        self._low = start  #: where the scan of the range goes on
        types = isolate_pageblocks(memory, start, end)
        self._types = types or []
        self.done = types is None
        self.error = -errno.EBUSY if types is None else 0

    def _migration_of(self, pfns: Pfns) -> PageMigration:
        targets = AllocatedTargets(self.memory)
        return migrate_pages(self.memory, pfns, targets, MigrateMode.SYNC, self._rules, self._grain)

    def _all_free(self) -> bool:
        return bool((self.memory.pages.order[self.start : self.end] != USED).all())


class ContigRange(IsolatedRange):
    """One attempt to take pages start..end-1. `step` until `done`.

    `error`: 0: the pages belong to the caller; -EBUSY: a page could not move; -ENOMEM: there was no target,
    or a driver said so.
    """

    _list = _NO_PAGES  #: isolated pages
    _rounds = 0  #: number of migrate_pages() calls made for these pages
    _asking: Isolation | None = None
    _migration: PageMigration | None = None
    _putback: Putback | None = None

    def run(self) -> int:
        """Do all of it, without other compactors in between; return the error."""
        while not self.done:
            self.step()
        return self.error

    def step(self) -> None:
        """Do the next piece of work."""
        if self._asking is not None:
            self._take_granted(self._asking)
        elif self._migration is not None:
            self._step_migration(self._migration)
        elif self._putback is not None:
            self._putback.step()
            if self._putback.done:
                self._putback = None
                self._finish()
        else:
            self._isolate()

    def _isolate(self) -> None:
        """Isolate up to 32 pages, over as many pageblocks as that takes; then migrate them."""
        wanted = COMPACT_CLUSTER_MAX - len(self._list)
        mode = IsolateMode.UNEVICTABLE
        found = isolatable(self.memory.pages, self._low, self.end, mode)[:wanted]
        chunk = found[: self._grain]
        self._low = int(chunk[-1]) + 1 if len(chunk) else self.end
        if len(chunk):
            self._asking = Isolation(self.memory, chunk, mode)
            self._asking.begin()
            if self._grain is None:
                self._take_granted(self._asking)
        elif len(self._list):
            self._rounds = 0
            self._migrate()
        else:
            self._finish()

    def _take_granted(self, isolation: Isolation) -> None:
        isolation.finish()
        self._asking = None
        self.memory.vmstat.compact_isolated += len(isolation.granted)
        self._list = np.concatenate([isolation.granted[::-1], self._list])
        if len(self._list) >= COMPACT_CLUSTER_MAX:
            self._rounds = 0
            self._migrate()

    def _migrate(self) -> None:
        self._rounds += 1
        self._migration = self._migration_of(self._list)

    def _step_migration(self, migration: PageMigration) -> None:
        if not migration.done:
            migration.step()
        if not migration.done:
            return
        self._migration = None
        self.moves += migration.moves
        self._list = migration.left
        if migration.error == -errno.ENOMEM:
            self._give_up(-errno.ENOMEM)
        elif len(self._list) and self._rounds == MAX_ROUNDS:
            self._give_up(-errno.EBUSY)
        elif len(self._list):
            self._migrate()

    def _give_up(self, error: int) -> None:
        self.error = error
        self._putback = Putback(self.memory, self._list, self._grain)
        self._list = _NO_PAGES

    def _finish(self) -> None:
        """Take the pages, if all of the range is free now."""
        self.done = True
        undo_isolate_pageblocks(self.memory, self.start, self._types, self._rules)
        if self.error == 0 and not self._all_free():
            self.error = -errno.EBUSY
        if self.error == 0:
            self.memory.take_range(self.start, self.end)
            self.memory.vmstat.compact_isolated += self.end - self.start
