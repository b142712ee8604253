"""migrate_pages(): moving a list of isolated pages (mm/migrate.c), as a state machine.

Kernels up to 6.1 have `OneByOneMigration`. In later ones a batch is tried in async mode first. Unless that is
the mode of the call, the pages that are left are then tried one by one in its own mode
(`migrate_pages_sync()`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.batch_attempt import BatchAttempt
from cluster.compaction.movable.migrate_one_by_one import OneByOneMigration
from cluster.compaction.movable.page_migration import NO_PAGES, PageMigration
from cluster.compaction.movable.predict_retries import (
    MigrationPlan,
    carry_out,
    first_attempts,
    first_mode,
    keep_targets,
    predict_retries,
)
from cluster.compaction.movable.retry_passes import ASYNC_PASSES, MAX_BATCH, MAX_PASSES
from cluster.compaction.movable.targets import Targets, take_targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode


class BatchMigration(PageMigration):
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
        self._later = pfns
        #: pages of the batch that are tried one by one next; None while all of them are tried in async mode
        self._single: Pfns | None = None
        self._given_up: list[Pfns] = []
        #: under way; None before the first attempt at a batch
        self._attempt: BatchAttempt | None = None
        self._batch = NO_PAGES
        self._targets_of_predicted = NO_PAGES
        self._begin_batch()

    @property
    def locked(self) -> Pfns:
        return self._predicted if self._attempt is None else self._attempt.asking

    def step(self) -> None:
        if len(self._predicted):
            self._move_predicted(self._predicted, self._targets_of_predicted)
        elif self._attempt is not None:
            self._step_attempt(self._attempt)
        elif not self._begin_predicted(self._batch):
            self._attempt = self._first_attempt()

    def withdraw(self) -> bool:
        if self.done or self._single is not None or self._given_up or self.succeeded:
            return False
        if len(self._predicted):
            self._undo(self._predicted, self._targets_of_predicted)
        return self._attempt is None or self._attempt.withdraw()

    def _begin_batch(self) -> None:
        self._batch, self._later = self._later[:MAX_BATCH], self._later[MAX_BATCH:]
        self._single = None
        self._attempt = None
        self._prediction_failed = False
        self._split: list[Pfns] = []  #: pages of large folios that were split
        self._trying_split = False

    # page by page

    def _first_attempt(self) -> BatchAttempt:
        return self._attempt_at(self._batch, MigrateMode.ASYNC, first_attempts(self._mode, self._rules))

    def _step_attempt(self, attempt: BatchAttempt) -> None:
        attempt.step(self.grain)
        self.waiting = attempt.waiting
        if attempt.done:
            self._end_attempt(attempt)

    def _attempt_at(self, pfns: Pfns, mode: MigrateMode, passes: int) -> BatchAttempt:
        return BatchAttempt(
            self._memory,
            pfns,
            self._targets,
            mode,
            passes,
            self._complete,
            rules=self._rules,
        )

    def _end_attempt(self, attempt: BatchAttempt) -> None:
        self.succeeded += attempt.dropped
        self._split += attempt.split
        if self._trying_split:
            self.failed += attempt.failed
            self._given_up += [attempt.given_up, attempt.untouched]
            self._end_batch()
        elif attempt.out_of_memory:
            self._end_without_target(attempt)
        elif self._single is None and self._mode != MigrateMode.ASYNC:
            self._next_single(np.concatenate([attempt.untouched, attempt.given_up]))
        else:
            self._count_failures(attempt)
            self._next_single(NO_PAGES if self._single is None else self._single)

    def _count_failures(self, attempt: BatchAttempt) -> None:
        self.failed += attempt.failed
        self.error += attempt.failed
        self._given_up += [attempt.given_up, attempt.untouched]

    def _next_single(self, pages: Pfns) -> None:
        """Try the first of these pages in the mode of the call; without any, those of split folios, once."""
        if len(pages):
            self._single = pages[1:]
            self._attempt = self._attempt_at(pages[:1], self._mode, MAX_PASSES - ASYNC_PASSES)
        elif self._split:
            self._trying_split = True
            self._attempt = self._attempt_at(np.concatenate(self._split), MigrateMode.ASYNC, 1)
        else:
            self._end_batch()

    def _end_batch(self) -> None:
        if len(self._later):
            self._begin_batch()
        else:
            self._finish(np.concatenate([NO_PAGES, *self._given_up]))

    def _end_without_target(self, attempt: BatchAttempt) -> None:
        """End the call; pages that were not tried any more do not count as failed."""
        self._count_failures(attempt)
        self.error = -errno.ENOMEM
        rest = NO_PAGES if self._single is None else self._single
        self._finish(np.concatenate([*self._given_up, rest, *self._split, self._later]))

    # with predicted answers

    def _begin_predicted(self, batch: Pfns) -> bool:
        """Lock the batch and its targets, if its owners can predict their answers."""
        pages = self._memory.pages
        too_many = self.grain is not None and len(batch) > self.grain
        if self._prediction_failed or too_many or pages.folio_order is not None:
            return False
        if pages.any_locked(batch) or np.count_nonzero(pages.freed(batch)):
            return False
        if predict_retries(self._memory, batch, self._mode, self._rules) is None:
            return False
        new = take_targets(self._targets, len(batch), all_first=True)
        if len(new) < len(batch):
            self._targets.give_back(new, none_left=True)
            return False
        pages.lock(batch)
        pages.lock_targets(new)
        self._predicted, self._targets_of_predicted = batch, new
        if self.grain is None:
            self._move_predicted(batch, new)
        return True

    def _move_predicted(self, batch: Pfns, new: Pfns) -> None:
        """Make all attempts."""
        self._predicted = NO_PAGES
        eagain_counts = predict_retries(self._memory, batch, self._mode, self._rules)
        if eagain_counts is None:
            # a driver has learnt something since the pages were locked
            self._undo(batch, new)
            self._prediction_failed = True
            return
        counts = np.minimum(eagain_counts, MAX_PASSES)
        order, used, unused = keep_targets(counts, new, first_attempts(self._mode, self._rules))
        fails = batch[counts == MAX_PASSES]
        plan = MigrationPlan(batch, counts, batch[order], used, fails, NO_PAGES)
        carry_out(self._memory, plan, first_mode(self._mode, self._rules))
        self._undo(fails, unused)
        if len(used):
            self._complete(plan.old, plan.new)
        self.failed += len(fails)
        self.error += len(fails)
        self._given_up.append(fails)
        self._next_single(NO_PAGES)


def migrate_pages(
    memory: Memory,
    pfns: Pfns,
    targets: Targets,
    mode: MigrateMode,
    rules: CompactionRules,
    grain: int | None = None,
    free: Callable[[Pfns], None] | None = None,
) -> PageMigration:
    """Begin to migrate isolated pages, in this order, as the kernel of the rules does. int64[n]."""
    migration = BatchMigration if rules.targets_first else OneByOneMigration
    return migration(memory, pfns, targets, mode, rules, grain, free)
