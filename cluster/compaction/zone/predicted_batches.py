"""Batches of a compaction whose outcome is predicted, carried out together, which spares most of the work.

No other compactor may come in between. Targets are taken batch by batch as without predictions; only the
changes of the sources are put off.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.isolation import Putback
from cluster.compaction.movable.page_migration import finish_moves
from cluster.compaction.movable.page_owners import by_owner
from cluster.compaction.movable.predict_retries import (
    MigrationPlan,
    carry_out,
    first_attempts,
    first_mode,
    keep_targets,
    next_attempt,
    predict_retries,
)
from cluster.compaction.movable.retry_passes import MAX_PASSES
from cluster.compaction.movable.targets import take_targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import PageStateError
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.free_scanner import FreeScanner

#: Pages carried out together: many, but few enough that their data stay in the processor's caches.
MAX_PAGES = 8192
_NO_PAGES: Pfns = np.zeros(0, np.int64)
#: pages; how many attempts of each answer -EAGAIN, None for none; targets
_Batch = tuple[Pfns, I64 | None, Pfns]


class PredictedBatches:
    """Batches of pages that are neither locked nor isolated. `pages`: how many wait to be carried out."""

    def __init__(
        self, memory: Memory, targets: FreeScanner, request: Request, rules: CompactionRules
    ) -> None:
        self._memory = memory
        self._targets = targets
        self._request = request
        self._rules = rules
        self._first = first_attempts(request.mode, rules)
        self._batches: list[_Batch] = []
        self._isolated = 0  #: pages of the first batch that are isolated already
        self.pages = 0

    @property
    def full(self) -> bool:
        return self.pages >= MAX_PAGES

    def add(self, batch: Pfns, eagain_counts: I64 | None, some_stay: bool = True) -> bool:
        """Add a batch to be moved; False, and no change, if there are too few targets for all attempts.

        eagain_counts: as predicted, None if no attempt fails; some_stay: some pages may never move.
        """
        if self._rules.targets_first:
            return self._add_with_targets(batch, eagain_counts)
        moving = len(batch)
        if eagain_counts is not None and some_stay:
            moving -= int(np.count_nonzero(eagain_counts >= MAX_PASSES))
        new = take_targets(self._targets, moving)
        if len(new) < moving or (eagain_counts is not None and not self._enough(eagain_counts, len(new))):
            self._targets.give_back(new)
            return False
        self._batches.append((batch, eagain_counts, new))
        self._targets.owed += moving
        self.pages += len(batch)
        return True

    def _add_with_targets(self, batch: Pfns, eagain_counts: I64 | None) -> bool:
        """Add a batch in which each page gets a target before the first attempt."""
        new = take_targets(self._targets, len(batch), all_first=True)
        if len(new) < len(batch):
            self._targets.give_back(new)
            return False
        if eagain_counts is not None:
            _order, new, unused = keep_targets(eagain_counts, new, self._first)
            self._targets.give_back(unused)
        self._batches.append((batch, eagain_counts, new))
        self._targets.owed += len(new)
        self.pages += len(batch)
        return True

    def add_isolated(self, batch: Pfns) -> bool:
        """Add an isolated batch as the first one; False, and no change, if that is not possible."""
        pages = self._memory.pages
        if pages.any_locked(batch) or np.count_nonzero(pages.freed(batch)):
            return False
        eagain_counts = predict_retries(self._memory, batch, self._request.mode, self._rules)
        if eagain_counts is None or not self.add(batch, eagain_counts):
            return False
        self._isolated = len(batch)
        self.watch_first()
        return True

    def watch_first(self) -> None:
        """Carry out the first batch before the free scanner comes near its pages.

        It was begun in an earlier step; without predictions its pages would have been freed by then.
        """
        if self._batches:
            self._targets.watch(int(self._batches[0][0].max()))

    def _enough(self, eagain_counts: I64, taken: int) -> bool:
        """Return whether there is a target for an attempt that fails after the last move."""
        if not self._targets.empty:
            return True
        if next_attempt(eagain_counts, np.argsort(eagain_counts, kind="stable")[:taken]) is None:
            return True
        probe = self._targets.take(1, taken)
        self._targets.give_back(probe)
        return len(probe) > 0

    def carry_out(self, most: int | None = None) -> tuple[Pfns, Pfns, int]:
        """Isolate, move and put back pages of the first batches.

        Return the pages moved, their new pages, and how many pages failed.
        """
        self._targets.mark()
        batches, self._batches = self._batches[:most], self._batches[len(self._batches[:most]) :]
        if not batches:
            return _NO_PAGES, _NO_PAGES, 0
        plan = _merged_plan(batches, self._first)
        self.pages -= len(plan.batch)
        self._targets.owed -= len(plan.old)
        memory, vmstat = self._memory, self._memory.vmstat
        memory.pages.lock(plan.batch)
        if len(fresh := plan.batch[self._isolated :]):
            self._isolate(fresh)
        self._isolated = 0
        carry_out(memory, plan, first_mode(self._request.mode, self._rules))
        if len(plan.old):
            finish_moves(memory, plan.old, plan.new, memory.free)
        memory.pages.unlock(plan.retry)
        Putback(memory, plan.retry).run()
        vmstat.pgmigrate_success += len(plan.old)
        vmstat.pgmigrate_fail += len(plan.retry)
        return plan.old, plan.new, len(plan.retry)

    def _isolate(self, batch: Pfns) -> None:
        pages = self._memory.pages
        pages.get(batch)
        for operations, which in by_owner(self._memory, batch):
            asked = batch[which]
            if operations is None or not operations.isolate_page(asked, self._request.isolate_mode).all():
                raise PageStateError(f"predicted to be isolated, but refused: some of {asked[:8].tolist()}")
        pages.isolate(batch)


def _merged_plan(batches: list[_Batch], first: int) -> MigrationPlan:
    """Return one plan for all batches; pages move batch after batch, and in each batch pass after pass.

    first: attempts that are made pass by pass; pages that need more follow page by page.
    """
    batch = np.concatenate([pages for pages, _, _ in batches])
    new = np.concatenate([targets for _, _, targets in batches])
    if all(counts is None for _, counts, _ in batches):
        return MigrationPlan(batch, None, batch, new, _NO_PAGES, _NO_PAGES)
    lengths = [len(pages) for pages, _, _ in batches]
    number = np.repeat(np.arange(len(batches)), lengths)
    none = np.zeros(max(lengths), np.int64)
    known = [none[: len(pages)] if counts is None else counts for pages, counts, _ in batches]
    eagain_counts = np.minimum(np.concatenate(known), MAX_PASSES)
    passes = np.minimum(eagain_counts, first)
    order = np.argsort(number * (MAX_PASSES + 1) + passes, kind="stable")
    fails = eagain_counts == MAX_PASSES
    return MigrationPlan(batch, eagain_counts, batch[order[~fails[order]]], new, batch[fails], _NO_PAGES)
