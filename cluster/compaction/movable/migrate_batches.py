"""migrate_pages() of kernels from 6.12 on: batch after batch (mm/migrate.c), as a state machine.

A batch is tried in async mode first. Unless that is the mode of the call, the pages that are left are then
tried one by one in its own mode (`migrate_pages_sync()`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.batch_attempt import BatchAttempt
from cluster.compaction.movable.page_migration import NO_PAGES, PageMigration
from cluster.compaction.movable.retry_passes import MAX_BATCH, MAX_PASSES
from cluster.compaction.movable.targets import Targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode

ASYNC_PASSES = 3  #: attempts in async mode that come before those in another mode


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
        self._attempt = self._begin_batch()

    @property
    def locked(self) -> Pfns:
        return self._attempt.asking

    def step(self) -> None:
        attempt = self._attempt
        attempt.step(self.grain)
        self.waiting = attempt.waiting
        if attempt.done:
            self._end_attempt(attempt)

    def withdraw(self) -> bool:
        first = not self.done and self._single is None and not self._given_up and not self.succeeded
        return first and self._attempt.withdraw()

    def _begin_batch(self) -> BatchAttempt:
        batch, self._later = self._later[:MAX_BATCH], self._later[MAX_BATCH:]
        passes = MAX_PASSES if self._mode == MigrateMode.ASYNC else ASYNC_PASSES
        return self._attempt_at(batch, MigrateMode.ASYNC, passes)

    def _attempt_at(self, pfns: Pfns, mode: MigrateMode, passes: int) -> BatchAttempt:
        return BatchAttempt(
            self._memory,
            pfns,
            self._targets,
            mode,
            passes,
            self._complete,
            movable_until_freed=self._rules.movable_until_freed,
        )

    def _end_attempt(self, attempt: BatchAttempt) -> None:
        self.succeeded += attempt.dropped
        if attempt.out_of_memory:
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
        """Try the first of these pages in the mode of the call; without any, begin the next batch."""
        if len(pages):
            self._single = pages[1:]
            self._attempt = self._attempt_at(pages[:1], self._mode, MAX_PASSES - ASYNC_PASSES)
        elif len(self._later):
            self._single = None
            self._attempt = self._begin_batch()
        else:
            self._finish(np.concatenate([NO_PAGES, *self._given_up]))

    def _end_without_target(self, attempt: BatchAttempt) -> None:
        """End the call; pages that were not tried any more do not count as failed."""
        self._count_failures(attempt)
        self.error = -errno.ENOMEM
        rest = NO_PAGES if self._single is None else self._single
        self._finish(np.concatenate([*self._given_up, rest, self._later]))
