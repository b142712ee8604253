"""migrate_pages() of kernels up to 6.1: page after page (mm/migrate.c), as a state machine.

Page by page, in the order of the list: the page is locked and gets a target, and the driver moves it. After
-EAGAIN the page is tried again after the others of its batch, at most 10 times in all (`RetryPasses`). After
any other error it is given up. -ENOMEM, or no target, ends the whole call at once. A page that its driver
freed meanwhile counts as migrated.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.isolation import Putback
from cluster.compaction.movable.page_migration import NO_PAGES, PageMigration, checked, leading
from cluster.compaction.movable.page_owners import first_run
from cluster.compaction.movable.predict_retries import carry_out, plan_migration, predict_retries
from cluster.compaction.movable.retry_passes import MAX_BATCH, WAIT_AFTER_PASS, RetryPasses
from cluster.compaction.movable.targets import Targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode, MovableOperations


class OneByOneMigration(PageMigration):
    """See `PageMigration`."""

    def __init__(
        self,
        memory: Memory,
        pfns: Pfns,
        targets: Targets,
        mode: MigrateMode,
        rules: CompactionRules,
        grain: int | None = None,
        free: Callable[[Pfns], None] | None = None,
    ) -> None:
        super().__init__(memory, targets, mode, rules, grain, free)
        self._passes = RetryPasses(pfns, MAX_BATCH if rules.in_batches else None)
        self._given_up: list[int] = []
        self._putback: Putback | None = None

    def step(self) -> None:
        if self._in_flight is not None:
            self._move(*self._in_flight)
        elif len(self._predicted):
            self._move_predicted(self._predicted)
        elif self._putback is not None:
            self._putback.step()
            self.waiting = self._putback.waiting
            self._putback = None if self._putback.done else self._putback
        elif len(self._passes.pending):
            if not self._begin_predicted():
                self._begin()
        elif not self._passes.begin_next_pass():
            self._end_of_batch()

    def withdraw(self) -> bool:
        begun = self.done or self._passes.begun or self.succeeded or self.failed
        if begun or self._in_flight is not None or self._putback is not None:
            return False
        self._memory.pages.unlock(self._predicted)
        return True

    # the end

    def _end_of_batch(self) -> None:
        given_up = self._passes.give_up()
        self.failed += len(given_up)
        self.error += len(given_up)
        self._given_up += given_up
        if not self._passes.begin_batch():
            self._finish(self._left())

    def _left(self) -> Pfns:
        return np.concatenate([np.array(self._given_up, np.int64), self._passes.left()])

    def _out_of_memory(self) -> None:
        """End for want of memory: the page that failed counts, and so do those with -EAGAIN in this pass."""
        self.failed += 1 + len(self._passes.retry)
        self.error = -errno.ENOMEM
        self._finish(self._left())

    # page by page

    def _begin(self) -> None:
        """Lock the next pages and their targets, all of one owner."""
        pages = self._memory.pages
        chunk = self._passes.pending[: self.grain]
        freed = pages.freed(chunk)
        if np.count_nonzero(freed):
            if freed[0]:
                chunk = chunk[: leading(freed)]
                self._passes.tried(len(chunk))
                self._drop_freed(chunk)
                return
            chunk = chunk[: leading(~freed)]
        if pages.any_locked(chunk):
            chunk = chunk[: leading(~pages.locked(chunk))]
            if len(chunk) == 0:
                self._meet_lock()
                return
        self.waiting = False
        self._begin_run(*first_run(pages, chunk))

    def _begin_run(self, word: int, chunk: Pfns) -> None:
        new = self._targets.take(len(chunk))
        if len(new) == 0:
            self._out_of_memory()
            return
        chunk = chunk[: len(new)]
        self._memory.pages.lock(chunk)
        self._memory.pages.lock_targets(new)
        operations = self._memory.operations_of(word)
        if operations is None:
            self._passes.tried(len(chunk))
            self._drop_cleared(chunk, new)
            return
        self._in_flight = (operations, chunk, new)
        if self.grain is None:
            self._move(operations, chunk, new)

    def _meet_lock(self) -> None:
        """Put the next page, which is locked, off to the next pass, or wait for it in later passes."""
        vmstat, passes = self._memory.vmstat, self._passes
        if self._mode == MigrateMode.ASYNC or passes.number <= WAIT_AFTER_PASS:
            vmstat.migrate_locked += 1
            passes.try_again(int(passes.pending[0]))
            passes.tried(1)
        else:
            self._wait_for_lock()

    def _move(self, operations: MovableOperations, chunk: Pfns, new: Pfns) -> None:
        """Call the driver and act on its answers."""
        self._in_flight = None
        moved, answer = checked(operations.migrate_page(new, chunk, self._mode), chunk)
        self._passes.tried(moved + (answer != 0))
        if moved < len(chunk):
            self._undo(chunk[moved:], new[moved:])
        if moved:
            self._complete(chunk[:moved], new[:moved])
        if answer:
            self._failed(int(chunk[moved]), answer)

    def _failed(self, pfn: int, answer: int) -> None:
        """Retry a page after -EAGAIN; give it up after another error; end after -ENOMEM."""
        if answer == -errno.EAGAIN:
            self._passes.try_again(pfn)
            return
        if self._rules.putback_at_once and answer != -errno.ENOMEM:
            self._putback = Putback(self._memory, np.array([pfn]), self.grain)
        else:
            self._given_up.append(pfn)
        if answer == -errno.ENOMEM:
            self._out_of_memory()
            return
        self.failed += 1
        self.error += 1

    # with predicted answers

    def _begin_predicted(self) -> bool:
        """Lock the rest of the batch, if its owners can predict their answers."""
        pages = self._memory.pages
        batch, _passes = self._passes.remaining()
        if self._prediction_failed or (self.grain is not None and len(batch) > self.grain):
            return False
        if pages.any_locked(batch) or np.count_nonzero(pages.freed(batch)):
            return False
        if predict_retries(self._memory, batch, self._mode, self._rules) is None:
            return False
        self.waiting = False
        pages.lock(batch)
        self._predicted = batch
        if self.grain is None:
            self._move_predicted(batch)
        return True

    def _move_predicted(self, batch: Pfns) -> None:
        """Make all attempts that are left, or those up to a move that changes the free lists."""
        pages = self._memory.pages
        self._predicted = NO_PAGES
        eagain_counts = predict_retries(self._memory, batch, self._mode, self._rules)
        if eagain_counts is None:
            # a driver has learnt something since the pages were locked
            pages.unlock(batch)
            self._prediction_failed = True
            return
        _batch, passes = self._passes.remaining()
        plan = plan_migration(batch, eagain_counts, self._targets, passes, self._room(batch))
        carry_out(self._memory, plan, self._mode)
        if len(plan.old):
            self._complete(plan.old, plan.new)
        self._passes.go_to(plan.number, plan.retry, plan.untried)
        pages.unlock(plan.retry)
        pages.unlock(plan.untried)
        if len(plan.untried) and not plan.goes_on:
            self._out_of_memory()

    def _room(self, batch: Pfns) -> int | None:
        """Return how many pages may be freed before the free lists change; None: there are none."""
        pcp = self._memory.zone_of(int(batch[0])).pcp
        return None if pcp is None else pcp.room
