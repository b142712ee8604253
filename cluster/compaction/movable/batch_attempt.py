"""migrate_pages_batch(): all pages of a batch are locked and get targets, then their drivers are called.

A page keeps its lock and its target over all its attempts, so nobody else can lock it meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.page_migration import NO_PAGES, checked, leading
from cluster.compaction.movable.page_owners import first_run
from cluster.compaction.movable.targets import Targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode, MovableOperations


class BatchAttempt:
    """One attempt at a batch in one mode. `step` until `done`.

    Then `given_up` are the pages that failed: those with errors, then those with -EAGAIN; `untouched` those
    that could not be locked, or got no target. `failed`: the number of failures; `out_of_memory`: a page got
    no target. `dropped`: pages that their drivers had given up. on_moved: called with the pages that were
    moved, and their targets.
    """

    def __init__(
        self,
        memory: Memory,
        pfns: Pfns,
        targets: Targets,
        mode: MigrateMode,
        passes: int,
        on_moved: Callable[[Pfns, Pfns], None],
        *,
        rules: CompactionRules,
    ) -> None:
        self._memory = memory
        self._movable_until_freed = rules.movable_until_freed
        self._split_from_the_end = rules.splits_from_the_end
        self._targets = targets
        self._mode = mode
        self._passes = passes
        self._on_moved = on_moved
        self._pass = 0
        self._moving = False
        #: pages to lock in this pass; while `_moving`, pages to move in this pass, and their targets
        self._pending = pfns
        self._targets_of_pending = NO_PAGES
        #: pages for the next pass, and their targets
        self._again: list[tuple[Pfns, Pfns]] = []
        self._locked_pages: list[tuple[Pfns, Pfns]] = []
        self._errors: list[int] = []
        #: operations, sources and targets of the driver call that the next step makes
        self._in_flight: tuple[MovableOperations, Pfns, Pfns] | None = None
        self.dropped = 0
        self.failed = 0
        self.out_of_memory = False
        self.done = False
        self.waiting = False  #: for a page that another compactor has locked
        self.split: list[Pfns] = []  #: pages of folios that were split, in the order of their attempts
        self.given_up = NO_PAGES
        self.untouched = NO_PAGES

    @property
    def asking(self) -> Pfns:
        """Pages whose driver is called in the next step."""
        return NO_PAGES if self._in_flight is None else self._in_flight[1]

    def step(self, grain: int | None) -> None:
        """Lock, or move, the next at most `grain` pages."""
        if self._in_flight is not None:
            self._move(*self._in_flight)
        elif len(self._pending):
            if self._moving:
                self._choose(grain)
            else:
                self._lock(self._pending[:grain])
        elif self._again and self._pass + 1 < self._passes:
            self._next_pass()
        elif self._moving:
            self._finish()
        else:
            self._begin_moving()

    def withdraw(self) -> bool:
        """Undo an attempt that has asked no driver yet; False, and no change, if it has."""
        if self._moving or self.dropped or self.out_of_memory or self._pass:
            return False
        old, new = _joined(self._locked_pages)
        self._unlock(old, new)
        self._targets.give_back(new)
        return True

    def _next_pass(self) -> None:
        self._pending, self._targets_of_pending = _joined(self._again)
        self._again = []
        self._pass += 1

    # locking

    def _lock(self, chunk: Pfns) -> None:
        """Lock the next of these pages, and their targets."""
        pages = self._memory.pages
        freed = pages.freed(chunk)
        if self._movable_until_freed:
            freed &= ~pages.page_movable_peek(chunk)
        if freed[0]:
            self._drop_freed(chunk[: leading(freed)])
            return
        chunk = chunk[: leading(~freed & ~pages.locked(chunk))]
        if pages.folio_order is not None and len(chunk):
            chunk = chunk[:1]
            if order := int(pages.folio_order[chunk[0]]):
                self._lock_folio(chunk, order)
                return
        new = self._targets.take(max(len(chunk), 1))
        if len(new) == 0:
            self._end_without_target()
        elif len(chunk) == 0:
            self._targets.give_back(new)
            self._meet_lock()
        else:
            chunk = chunk[: len(new)]
            pages.lock(chunk)
            pages.lock_targets(new)
            self._locked_pages.append((chunk, new))
            self._pending = self._pending[len(chunk) :]
            self.waiting = False

    def _lock_folio(self, head: Pfns, order: int) -> None:
        """Lock a large folio and its target; without one it is split at once, if smaller ones are left."""
        pages = self._memory.pages
        self._pending = self._pending[1:]
        target = self._targets.take_block(order)
        if target is None:
            split = pages.split_folio(int(head[0]))
            self.split.append(split[::-1] if self._split_from_the_end else np.roll(split, -1))
            return
        new = np.array([target])
        pages.lock(head)
        pages.lock_targets(new)
        self._locked_pages.append((head, new))

    def _drop_freed(self, chunk: Pfns) -> None:
        """Free pages of which only the VM's reference is left: there is nothing to move."""
        self._pending = self._pending[len(chunk) :]
        self.dropped += len(chunk)
        self._memory.put(chunk)

    def _meet_lock(self) -> None:
        """Put the next page, which is locked, off to the next pass, or wait for it in sync mode."""
        if self._mode != MigrateMode.SYNC:
            self._memory.vmstat.migrate_locked += 1
            self._again.append((self._pending[:1], NO_PAGES))
            self._pending = self._pending[1:]
        elif not self.waiting:
            self._memory.vmstat.lock_waits += 1
            self.waiting = True

    def _end_without_target(self) -> None:
        """Lock no more pages; those that are locked are moved."""
        self.failed += 1
        self.out_of_memory = True
        self._begin_moving()

    def _begin_moving(self) -> None:
        self.failed += len(self._again)
        self.untouched = np.concatenate([*(pages for pages, _ in self._again), self._pending])
        self._pending, self._targets_of_pending = _joined(self._locked_pages)
        self._again, self._pass, self._moving, self.waiting = [], 0, True, False

    # moving

    def _choose(self, grain: int | None) -> None:
        """Choose the next pages of one owner; let go of those that their driver has made unmovable."""
        word, chunk = first_run(self._memory.pages, self._pending[:grain])
        new = self._targets_of_pending[: len(chunk)]
        operations = self._memory.operations_of(word)
        if operations is None:
            self._drop_cleared(chunk, new)
            return
        self._in_flight = operations, chunk, new
        if grain is None:
            self._move(operations, chunk, new)

    def _drop_cleared(self, chunk: Pfns, new: Pfns) -> None:
        """Let go of pages that their driver keeps but made unmovable; their targets are freed."""
        if self._movable_until_freed and self._memory.on_given_up is not None:
            self._memory.on_given_up(chunk, new, self._mode)
        self._pop(len(chunk))
        self.dropped += len(chunk)
        self._memory.pages.putback_and_unlock(chunk)
        self._memory.put(chunk)
        self._memory.free(new)

    def _pop(self, count: int) -> None:
        self._pending = self._pending[count:]
        self._targets_of_pending = self._targets_of_pending[count:]

    def _move(self, operations: MovableOperations, chunk: Pfns, new: Pfns) -> None:
        """Call the driver and act on its answers."""
        self._in_flight = None
        moved, answer = checked(operations.migrate_page(new, chunk, self._mode), chunk)
        self._pop(moved + (answer != 0))
        if moved:
            self._on_moved(chunk[:moved], new[:moved])
        page, target = chunk[moved : moved + 1], new[moved : moved + 1]
        if answer == -errno.EAGAIN:
            self._again.append((page, target))
        elif answer:
            self.failed += 1
            self._errors.append(int(page[0]))
            self._unlock(page, target)
            self._targets.give_back(target)

    def _finish(self) -> None:
        """Unlock the pages that answered -EAGAIN in every pass; their targets go back one by one."""
        old, new = _joined(self._again)
        self.failed += len(old)
        self._unlock(old, new)
        self._targets.give_back(new[::-1])
        self.given_up = np.concatenate([np.array(self._errors, np.int64), old])
        self.done = True

    def _unlock(self, old: Pfns, new: Pfns) -> None:
        self._memory.pages.unlock(old)
        self._memory.pages.unlock(new)


def _joined(parts: list[tuple[Pfns, Pfns]]) -> tuple[Pfns, Pfns]:
    return (
        np.concatenate([NO_PAGES, *(old for old, _ in parts)]),
        np.concatenate([NO_PAGES, *(new for _, new in parts)]),
    )
