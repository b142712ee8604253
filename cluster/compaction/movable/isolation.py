"""Pages taken from their owners for a while (isolate_movable_page) and put back (putback_movable_pages)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.movable.page_owners import runs
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode


class Isolation:
    """isolate_movable_page() for a batch: `begin` locks the pages, `finish` asks the driver.

    Between the two, others see pages locked and not isolated. Afterwards `granted` (int64[m]) are isolated,
    with a reference more; the others are as before. `held`: references that the caller has of its own until
    then.
    """

    def __init__(self, memory: Memory, pfns: Pfns, mode: IsolateMode, held: int = 0) -> None:
        self._held = held
        self._memory = memory
        self._mode = mode
        self.asked = pfns
        self.granted = pfns[:0]
        self.locked = pfns[:0]

    def begin(self) -> None:
        """Take references and locks; leave locked pages alone."""
        pages = self._memory.pages
        self.locked = pages.trylock(self.asked)
        self._memory.vmstat.skipped_locked += len(self.asked) - len(self.locked)
        pages.get(self.locked, 1 + self._held)

    def finish(self) -> None:
        """Ask the drivers, mark the pages that they grant, unlock all."""
        pages = self._memory.pages
        granted = [self._ask(word, run) for word, run in runs(pages, self.locked)]
        if len(granted) == 1:
            self.granted = granted[0]
        elif granted:
            self.granted = np.concatenate(granted)
        if len(self.granted) == len(self.locked):
            pages.isolate_and_unlock(self.granted)
        else:
            pages.isolate(self.granted)
            pages.unlock(self.locked)
            self._memory.put(np.setdiff1d(self.locked, self.granted, assume_unique=True))
        if self._memory.on_isolate is not None:
            self._memory.on_isolate(self.asked, self.granted)
        if self._held:
            self._memory.put(self.locked, self._held)
        self.locked = self.locked[:0]

    def _ask(self, word: int, run: Pfns) -> Pfns:
        """Return the pages of this run, all with one mapping word, that their driver grants."""
        operations = self._memory.operations_of(word)
        if operations is None:
            # the driver has cleared them meanwhile
            return run[:0]
        run = self._memory.pages.not_isolated(run)
        if len(run) == 0:
            return run
        granted = operations.isolate_page(run, self._mode)
        return run if np.count_nonzero(granted) == len(run) else run[granted]


class Putback:
    """putback_movable_pages(): isolated pages that were not migrated go back, in their order.

    `step` handles at most `grain` pages (all, if None), in two steps if a grain is given: lock, then call.
    """

    def __init__(self, memory: Memory, pfns: Pfns, grain: int | None = None) -> None:
        self._memory = memory
        self._left = pfns
        self._grain = grain
        self._locked = pfns[:0]
        self.waiting = False  #: for a page that another compactor has locked

    @property
    def done(self) -> bool:
        return len(self._left) == 0 and len(self._locked) == 0

    def step(self) -> None:
        """Lock the next pages, or hand the locked ones to their drivers."""
        if len(self._locked):
            self._finish()
            return
        pages, chunk = self._memory.pages, self._left[: self._grain]
        if pages.any_locked(chunk):
            chunk = chunk[: int(np.argmax(pages.locked(chunk)))]
            if len(chunk) == 0:
                self._memory.vmstat.lock_waits += not self.waiting
                self.waiting = True
                return
        self.waiting = False
        self._left = self._left[len(chunk) :]
        pages.lock(chunk)
        self._locked = chunk
        if self._grain is None:
            self._finish()

    def run(self) -> None:
        """Put back all of them; only where no other compactor can hold a lock."""
        while not self.done:
            self.step()

    def _finish(self) -> None:
        pages, locked = self._memory.pages, self._locked
        self._locked = locked[:0]
        for word, run in runs(pages, locked):
            if operations := self._memory.operations_of(word):
                operations.putback_page(run)
        pages.putback_and_unlock(locked)
        self._memory.put(locked)
