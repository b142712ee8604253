"""Batches of a compaction whose outcome is known, carried out together, which spares most of the work.

Nobody else may come in between. Targets are taken batch by batch, as ever; what happens to the sources waits.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.movable.migrate_pages import settle
from cluster.compaction.movable.predict_retries import (
    MAX_PASSES,
    Plan,
    after_last,
    carry_out,
    foresee,
    owners,
    take,
)
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import PageStateError, Putback
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LOCKED
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.free_scanner import FreeScanner

#: Pages of a sweep: many, but few enough that their data stay in the processor's caches.
MAX_PAGES = 8192
_NO_PAGES: I64 = np.zeros(0, np.int64)
#: pages, how often attempts of each fail if any does, and targets
_Batch = tuple[I64, I64 | None, I64]


class Sweep:
    """Batches of pages that nobody has locked or isolated. `pages` wait to be carried out."""

    def __init__(self, memory: Memory, targets: FreeScanner, request: Request) -> None:
        self._memory = memory
        self._targets = targets
        self._request = request
        self._batches: list[_Batch] = []
        self._isolated = 0  #: pages of the first batch that are isolated already
        self.pages = 0

    @property
    def full(self) -> bool:
        return self.pages >= MAX_PAGES

    def add(self, batch: I64, again: I64 | None, stuck: bool = True) -> bool:
        """The batch is to be moved; False, and no change, if there are too few targets for all attempts.

        again: as foreseen, None for no attempt that fails; stuck: some may never move.
        """
        moving = len(batch)
        if again is not None and stuck:
            moving -= int(np.count_nonzero(again >= MAX_PASSES))
        new = take(self._targets, moving)
        if len(new) < moving or (again is not None and not self._enough(again, len(new))):
            self._targets.give_back(new)
            return False
        self._batches.append((batch, again, new))
        self._targets.owed += moving
        self.pages += len(batch)
        return True

    def join(self, batch: I64) -> bool:
        """As the first batch, one that is isolated already; False too if it is not foreseen."""
        pages = self._memory.pages
        if pages.any_flag(batch, PG_LOCKED) or np.count_nonzero(pages.refcount[batch] == 1):
            return False
        again = foresee(self._memory, batch, self._request.mode)
        if again is None or not self.add(batch, again):
            return False
        self._isolated = len(batch)
        self.hurry()
        return True

    def hurry(self) -> None:
        """The first batch would have been carried out by now: so it is, before the free scanner is near."""
        if self._batches:
            self._targets.watch(int(self._batches[0][0].max()))

    def _enough(self, again: I64, taken: int) -> bool:
        """An attempt that fails needs a target too, which then is left for the next batch."""
        if not self._targets.empty or after_last(again, np.argsort(again, kind="stable")[:taken]) is None:
            return True
        probe = self._targets.take(1, taken)
        self._targets.give_back(probe)
        return len(probe) > 0

    def carry_out(self, most: int | None = None) -> tuple[I64, I64, int]:
        """Isolate, move and put back pages of the first batches: moved, where to, how many failed."""
        self._targets.mark()
        batches, self._batches = self._batches[:most], self._batches[len(self._batches[:most]) :]
        if not batches:
            return _NO_PAGES, _NO_PAGES, 0
        plan = _plan(batches)
        self.pages -= len(plan.batch)
        self._targets.owed -= len(plan.old)
        memory, vmstat = self._memory, self._memory.vmstat
        memory.pages.flags[plan.batch] |= PG_LOCKED
        if len(fresh := plan.batch[self._isolated :]):
            self._isolate(fresh)
        self._isolated = 0
        carry_out(memory, plan, self._request.mode)
        if len(plan.old):
            settle(memory, plan.old, plan.new, memory.free)
        memory.pages.flags[plan.retry] &= ~np.uint8(PG_LOCKED)
        Putback(memory, plan.retry).run()
        vmstat.pgmigrate_success += len(plan.old)
        vmstat.pgmigrate_fail += len(plan.retry)
        return plan.old, plan.new, len(plan.retry)

    def _isolate(self, batch: I64) -> None:
        pages = self._memory.pages
        pages.refcount[batch] += 1
        for operations, which in owners(self._memory, batch):
            asked = batch[which]
            if operations is None or not operations.isolate_page(asked, self._request.isolate_mode).all():
                raise PageStateError(f"isolation foreseen, but refused: some of {asked[:8].tolist()}")
        pages.flags[batch] |= PG_ISOLATED


def _plan(batches: list[_Batch]) -> Plan:
    """All batches as one, in whose order pages move batch after batch, and pass after pass in each."""
    batch = np.concatenate([pages for pages, _, _ in batches])
    new = np.concatenate([targets for _, _, targets in batches])
    if all(again is None for _, again, _ in batches):
        return Plan(batch, None, batch, new, _NO_PAGES, _NO_PAGES)
    lengths = [len(pages) for pages, _, _ in batches]
    number = np.repeat(np.arange(len(batches)), lengths)
    none = np.zeros(max(lengths), np.int64)
    again = np.concatenate([none[: len(pages)] if again is None else again for pages, again, _ in batches])
    times = np.minimum(again, MAX_PASSES)
    order = np.argsort(number * (MAX_PASSES + 1) + times, kind="stable")
    fails = times == MAX_PASSES
    return Plan(batch, times, batch[order[~fails[order]]], new, batch[fails], _NO_PAGES)
