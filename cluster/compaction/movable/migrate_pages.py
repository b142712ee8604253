"""migrate_pages(): moving a list of isolated pages (mm/migrate.c), as a state machine.

Page by page, in the order of the list: the page is locked, gets a target, the driver moves it. -EAGAIN: it is
tried again after the others of its batch, at most 10 times in all. Any other error: given up. -ENOMEM, or no
target: the whole call ends at once. A page that its driver freed meanwhile counts as migrated.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.movable import predict_retries as foresight
from cluster.compaction.movable.predict_retries import MAX_PASSES
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import (
    MigrateMode,
    MovableOperations,
    PageStateError,
    Putback,
    first_owner,
)
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LOCKED

WAIT_AFTER_PASS = 2  #: in later passes a locked page is waited for, unless the mode is async
_NO_PAGES: I64 = np.zeros(0, np.int64)


class Targets(Protocol):
    """Where new pages come from: used (reference 1), unlocked, without any owner."""

    def take(self, count: int, owed: int = 0) -> I64:
        """At most `count` new pages, at least one if there is any at all. int64[0..count].

        owed: pages that will be free once targets taken before are in use.
        """

    def give_back(self, pfns: I64) -> None:
        """Those of the pages taken last that were not used, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class MigrateRules:
    """How releases differ."""

    #: a page with an error other than -EAGAIN is put back at once, not after the whole list
    putback_at_once: bool = False
    #: pages worked on together: a page is retried before the next so many are begun
    batch: int | None = 512


class Migration:
    """One call of migrate_pages(). `step` until `done`; then `left` are still isolated, for the caller.

    With a `grain`, a step handles at most so many pages, locking them in one step and calling the driver in
    the next; without, a step is as many pages as one driver call can take. If all answers of a batch are
    foreseen, it is one such step, retries included. `moves` are (sources, targets). `error`: number of pages
    that failed, or -ENOMEM.
    """

    def __init__(
        self,
        memory: Memory,
        pfns: I64,
        targets: Targets,
        mode: MigrateMode,
        rules: MigrateRules,
        grain: int | None = None,
        free: Callable[[I64], None] | None = None,
    ) -> None:
        self._memory = memory
        self._free = free or memory.free
        self._targets = targets
        self._mode = mode
        self._rules = rules
        self.grain = grain
        self._waiting = pfns
        self._list = _NO_PAGES
        self._retry: list[int] = []
        self._given_up: list[int] = []
        self._pass = 0
        self._in_flight: tuple[MovableOperations, I64, I64] | None = None
        self._foreseen = _NO_PAGES
        self._careful = False
        self._putback: Putback | None = None
        self.moves: list[tuple[I64, I64]] = []
        self.succeeded = 0
        self.failed = 0
        self.error = 0
        self.done = False
        self.waiting = False  #: for a page that someone else has locked
        self.left = _NO_PAGES
        self._next_batch()

    @property
    def locked(self) -> I64:
        """Pages whose driver is being asked to move them."""
        return self._foreseen if self._in_flight is None else self._in_flight[1]

    def run(self) -> None:
        """All of it; only where nobody else can hold a lock."""
        while not self.done:
            self.step()

    def step(self) -> None:
        """The next piece of work; none if a page is locked by someone else and has to be waited for."""
        if self._in_flight is not None:
            self._move(*self._in_flight)
        elif len(self._foreseen):
            self._move_foreseen(self._foreseen)
        elif self._putback is not None:
            self._putback.step()
            self.waiting = self._putback.waiting
            self._putback = None if self._putback.done else self._putback
        elif len(self._list):
            if not self._begin_foreseen():
                self._begin()
        elif self._retry and self._pass + 1 < MAX_PASSES:
            self._list, self._retry = np.array(self._retry, np.int64), []
            self._pass += 1
        else:
            self._end_of_batch()

    def abandon(self) -> None:
        """End here: what is not moved yet is `left`, unlocked and still isolated."""
        if self._in_flight is not None:
            _operations, chunk, new = self._in_flight
            self._in_flight = None
            self._undo(chunk, new)
        self._unlock(self._foreseen)
        self._foreseen = _NO_PAGES
        if self._putback is not None:
            self._given_up += self._putback.abandon().tolist()
            self._putback = None
        if not self.done:
            self._finish()

    def withdraw(self) -> bool:
        """If nothing was tried yet, there will be nothing: its pages are unlocked and still isolated."""
        begun = self.done or self._pass or self.succeeded or self.failed or self._retry
        if begun or self._in_flight is not None or self._putback is not None:
            return False
        self._unlock(self._foreseen)
        return True

    def _next_batch(self) -> None:
        size = self._rules.batch or len(self._waiting)
        self._list, self._waiting = self._waiting[:size], self._waiting[size:]
        self._pass = 0

    def _end_of_batch(self) -> None:
        self.failed += len(self._retry)
        self.error += len(self._retry)
        self._given_up += self._retry
        self._retry = []
        if len(self._waiting):
            self._next_batch()
        else:
            self._finish()

    def _finish(self) -> None:
        self.done = True
        rest = [*self._given_up, *self._retry]
        self.left = np.concatenate([np.array(rest, np.int64), self._list, self._waiting])
        self._memory.vmstat.pgmigrate_success += self.succeeded
        self._memory.vmstat.pgmigrate_fail += self.failed

    def _out_of_memory(self) -> None:
        """A page failed for want of memory: it counts, and so do those with -EAGAIN in this pass."""
        self.failed += 1 + len(self._retry)
        self.error = -errno.ENOMEM
        self._finish()

    def _begin(self) -> None:
        """Lock the next pages and their targets, all of one owner."""
        pages = self._memory.pages
        chunk = self._list[: self.grain]
        freed = pages.refcount[chunk] == 1
        if np.count_nonzero(freed):
            if freed[0]:
                self._drop_freed(chunk[: _leading(freed)])
                return
            chunk = chunk[: _leading(~freed)]
        if pages.any_flag(chunk, PG_LOCKED):
            chunk = chunk[: _leading(~pages.locked(chunk))]
            if len(chunk) == 0:
                self._meet_lock()
                return
        self.waiting = False
        self._begin_run(*first_owner(pages, chunk))

    def _begin_run(self, word: int, chunk: I64) -> None:
        new = self._targets.take(len(chunk))
        if len(new) == 0:
            self._out_of_memory()
            return
        chunk = chunk[: len(new)]
        self._memory.pages.flags[chunk] |= PG_LOCKED
        self._memory.pages.flags[new] = PG_LOCKED
        self._dispatch(word, chunk, new)

    def _dispatch(self, word: int, chunk: I64, new: I64) -> None:
        operations = self._memory.operations_of(word)
        if operations is None:
            self._drop_cleared(chunk, new)
            return
        self._in_flight = (operations, chunk, new)
        if self.grain is None:
            self._move(operations, chunk, new)

    def _drop_freed(self, chunk: I64) -> None:
        """Only the VM's reference is left: nothing to move."""
        self._list = self._list[len(chunk) :]
        self.succeeded += len(chunk)
        self._memory.put(chunk)

    def _drop_cleared(self, chunk: I64, new: I64) -> None:
        """The driver keeps the pages but made them unmovable: they stay, their targets are freed."""
        pages = self._memory.pages
        self._list = self._list[len(chunk) :]
        self.succeeded += len(chunk)
        pages.flags[chunk] &= ~np.uint8(PG_ISOLATED | PG_LOCKED)
        self._memory.put(chunk)
        self._memory.free(new)

    def _meet_lock(self) -> None:
        """trylock_page() failed for the next page."""
        vmstat = self._memory.vmstat
        if self._mode == MigrateMode.ASYNC or self._pass <= WAIT_AFTER_PASS:
            vmstat.migrate_locked += 1
            self._retry.append(int(self._list[0]))
            self._list = self._list[1:]
        elif not self.waiting:
            vmstat.lock_waits += 1
            self.waiting = True

    def _move(self, operations: MovableOperations, chunk: I64, new: I64) -> None:
        """Call the driver and act on its answers."""
        self._in_flight = None
        answers = operations.migrate_page(new, chunk, self._mode)
        moved, answer = _checked(answers, chunk)
        tried = moved + (answer != 0)
        self._list = self._list[tried:]
        if answer:
            self._undo(chunk[moved:], new[moved:])
            chunk, new = chunk[: moved + 1], new[:moved]
        elif moved < len(chunk):
            self._undo(chunk[moved:], new[moved:])
            chunk, new = chunk[:moved], new[:moved]
        if moved:
            self._complete(chunk[:moved], new)
        if answer:
            self._failed(int(chunk[moved]), answer)

    def _undo(self, chunk: I64, new: I64) -> None:
        self._unlock(chunk)
        self._memory.pages.flags[new] = 0
        self._targets.give_back(new)

    def _unlock(self, pfns: I64) -> None:
        self._memory.pages.flags[pfns] &= ~np.uint8(PG_LOCKED)

    def _complete(self, old: I64, new: I64) -> None:
        settle(self._memory, old, new, self._free)
        self.moves.append((old, new))
        self.succeeded += len(old)

    # answers known beforehand

    def _rest(self) -> tuple[I64, I64 | None]:
        """What is left of the batch, in the order of the attempts, and the passes behind them."""
        if not self._pass and not self._retry:
            return self._list, None
        made = np.repeat([self._pass + 1, self._pass], [len(self._retry), len(self._list)])
        return np.concatenate([np.array(self._retry, np.int64), self._list]), made

    def _begin_foreseen(self) -> bool:
        """Lock the rest of the batch, if it is known what its owners will answer."""
        pages = self._memory.pages
        batch, _made = self._rest()
        if self._careful or (self.grain is not None and len(batch) > self.grain):
            return False
        if pages.any_flag(batch, PG_LOCKED) or np.count_nonzero(pages.refcount[batch] == 1):
            return False
        if foresight.foresee(self._memory, batch, self._mode) is None:
            return False
        self.waiting = False
        pages.flags[batch] |= PG_LOCKED
        self._foreseen = batch
        if self.grain is None:
            self._move_foreseen(batch)
        return True

    def _move_foreseen(self, batch: I64) -> None:
        """All attempts that are left."""
        self._foreseen = _NO_PAGES
        again = foresight.foresee(self._memory, batch, self._mode)
        if again is None:
            # a driver has learnt something since the pages were locked
            self._unlock(batch)
            self._careful = True
            return
        plan = foresight.plan(batch, again, self._targets, made=self._rest()[1])
        foresight.carry_out(self._memory, plan, self._mode)
        if len(plan.old):
            self._complete(plan.old, plan.new)
        self._retry, self._list = plan.retry.tolist(), plan.untried
        self._unlock(plan.retry)
        self._unlock(plan.untried)
        self._pass = MAX_PASSES - 1
        if len(plan.untried):
            self._out_of_memory()

    def _failed(self, pfn: int, answer: int) -> None:
        if answer == -errno.EAGAIN:
            self._retry.append(pfn)
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


def settle(memory: Memory, old: I64, new: I64, free: Callable[[I64], None]) -> None:
    """After the driver: the old pages are free, the new ones its own, or free if it took none. int64[n]."""
    pages = memory.pages
    pages.flags[new] &= ~np.uint8(PG_LOCKED)
    pages.kind[new] = pages.kind[old]
    free(old)
    unused = pages.mapping[new] == 0
    if np.count_nonzero(unused):
        memory.free(new[unused])


def _leading(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _checked(answers: I64, chunk: I64) -> tuple[int, int]:
    """How many pages were moved, and the answer for the one after them, 0 if there was none."""
    if not 0 < len(answers) <= len(chunk) or answers[:-1].any():
        raise PageStateError(
            f"answers {answers.tolist()} for {len(chunk)} pages: migrate_page must stop at the first error"
        )
    last = int(answers[-1])
    return len(answers) - (last != 0), last
