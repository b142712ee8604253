"""Batches of a compaction whose outcome is known, carried out together, which spares most of the work.

Nobody else may come in between. Targets are taken batch by batch, as ever; what happens to the sources waits.
"""

from __future__ import annotations

import numpy as np

from cluster.migration.control import Request
from cluster.migration.foresight import MAX_PASSES, Plan, after_last, carry_out, owners, take
from cluster.migration.free_scanner import FreeScanner
from cluster.migration.memory import Memory
from cluster.migration.migrate import settle
from cluster.migration.movable import PageStateError, Putback
from cluster.migration.pages import PG_ISOLATED, PG_LOCKED
from cluster.words import I64

#: Pages of a sweep: many, but few enough that their data stay in the processor's caches.
MAX_PAGES = 8192
_NO_PAGES: I64 = np.zeros(0, np.int64)


class Sweep:
    """Batches of pages that nobody has locked or isolated. `pages` wait to be carried out."""

    def __init__(self, memory: Memory, targets: FreeScanner, request: Request) -> None:
        self._memory = memory
        self._targets = targets
        self._request = request
        self._batches: list[tuple[I64, I64, I64]] = []
        self._owed = 0
        self.pages = 0

    @property
    def full(self) -> bool:
        return self.pages >= MAX_PAGES

    def add(self, batch: I64, again: I64) -> bool:
        """The batch is to be moved; False, and no change, if there are too few targets for all attempts."""
        moving = len(batch) - int(np.count_nonzero(again >= MAX_PASSES))
        new = take(self._targets, moving, self._owed)
        if len(new) < moving or not self._enough(again, len(new)):
            self._targets.give_back(new)
            return False
        self._batches.append((batch, again, new))
        self._owed += moving
        self.pages += len(batch)
        return True

    def _enough(self, again: I64, taken: int) -> bool:
        """An attempt that fails needs a target too, which then is left for the next batch."""
        if not self._targets.empty or after_last(again, np.argsort(again, kind="stable")[:taken]) is None:
            return True
        probe = self._targets.take(1, self._owed + taken)
        self._targets.give_back(probe)
        return len(probe) > 0

    def carry_out(self) -> tuple[I64, I64, int]:
        """Isolate, move and put back the pages of all batches: those moved, where to, and how many failed."""
        if not self._batches:
            return _NO_PAGES, _NO_PAGES, 0
        plan = self._plan()
        self._batches, self._owed, self.pages = [], 0, 0
        memory, vmstat = self._memory, self._memory.vmstat
        self._isolate(plan.batch)
        memory.pages.flags[plan.batch] |= PG_ISOLATED
        carry_out(memory, plan, self._request.mode)
        if len(plan.old):
            settle(memory, plan.old, plan.new, memory.free)
        memory.pages.flags[plan.retry] &= ~np.uint8(PG_LOCKED)
        Putback(memory, plan.retry).run()
        vmstat.pgmigrate_success += len(plan.old)
        vmstat.pgmigrate_fail += len(plan.retry)
        return plan.old, plan.new, len(plan.retry)

    def _plan(self) -> Plan:
        """All batches as one, in whose order pages move batch after batch, and pass after pass in each."""
        batch, again, new = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        if np.count_nonzero(again) == 0:
            return Plan(batch, None, batch, new, _NO_PAGES, _NO_PAGES)
        number = np.repeat(np.arange(len(self._batches)), [len(pages) for pages, _, _ in self._batches])
        times = np.minimum(again, MAX_PASSES)
        order = np.argsort(number * (MAX_PASSES + 1) + times, kind="stable")
        fails = times == MAX_PASSES
        return Plan(batch, times, batch[order[~fails[order]]], new, batch[fails], _NO_PAGES)

    def _isolate(self, batch: I64) -> None:
        pages = self._memory.pages
        pages.refcount[batch] += 1
        pages.flags[batch] |= PG_LOCKED
        for operations, which in owners(self._memory, batch):
            asked = batch[which]
            if operations is None or not operations.isolate_page(asked, self._request.isolate_mode).all():
                raise PageStateError(f"isolation foreseen, but refused: some of {asked[:8].tolist()}")
