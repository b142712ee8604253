"""One call of migrate_pages() as a state machine: what all kernels have in common (mm/migrate.c)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cluster.arrays.words import I64, Bool, Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.targets import Targets
from cluster.compaction.pages.buddy import pages_of
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode, MovableOperations, PageStateError

NO_PAGES: Pfns = np.zeros(0, np.int64)


class PageMigration:
    """One call of migrate_pages(). `step` until `done`; then `left` are still isolated, for the caller.

    With a `grain`, a step handles at most `grain` pages, locking them in one step and calling the driver in
    the next; without, a step is as many pages as one driver call can take. If all answers of a batch can be
    predicted, it is one such step, retries included. `moves` are (sources, targets). `error`: number of pages
    that failed, or -ENOMEM.
    """

    def __init__(
        self,
        memory: Memory,
        targets: Targets,
        mode: MigrateMode,
        rules: CompactionRules,
        grain: int | None,
        free: Callable[[Pfns], None] | None,
    ) -> None:
        self._memory = memory
        self._free = free or memory.free
        self._targets = targets
        self._mode = mode
        self._rules = rules
        self.grain = grain
        #: operations, sources and targets of the driver call that the next step makes
        self._in_flight: tuple[MovableOperations, Pfns, Pfns] | None = None
        self._predicted = NO_PAGES  #: pages locked for a move with predicted answers
        self._prediction_failed = False
        self.moves: list[tuple[Pfns, Pfns]] = []
        self.succeeded = 0
        self.failed = 0
        self.error = 0
        self.done = False
        self.waiting = False  #: for a page that another compactor has locked
        self.left = NO_PAGES

    @property
    def locked(self) -> Pfns:
        """Pages whose driver is being asked to move them."""
        return self._predicted if self._in_flight is None else self._in_flight[1]

    def run(self) -> None:
        """Do all of it; only where no other compactor can hold a lock."""
        while not self.done:
            self.step()

    def step(self) -> None:
        """Do the next piece of work; nothing if the next page is locked and has to be waited for."""
        raise NotImplementedError

    def withdraw(self) -> bool:
        """Undo a migration that has tried nothing yet: its pages are unlocked and still isolated.

        False, and no change, if something was tried.
        """
        raise NotImplementedError

    def _finish(self, left: Pfns) -> None:
        self.done = True
        self.left = left
        self._memory.vmstat.pgmigrate_success += self.succeeded
        self._memory.vmstat.pgmigrate_fail += self.failed

    def _drop_freed(self, chunk: Pfns) -> None:
        """Free pages of which only the VM's reference is left: there is nothing to move."""
        self.succeeded += len(chunk)
        self._memory.put(chunk)

    def _drop_cleared(self, chunk: Pfns, new: Pfns) -> None:
        """Let go of pages that their driver keeps but made unmovable; their targets are freed."""
        self.succeeded += len(chunk)
        self._memory.pages.putback_and_unlock(chunk)
        self._memory.put(chunk)
        self._memory.free(new)

    def _wait_for_lock(self) -> None:
        """Wait for the next page, which another compactor has locked."""
        if not self.waiting:
            self._memory.vmstat.lock_waits += 1
            self.waiting = True

    def _undo(self, chunk: Pfns, new: Pfns) -> None:
        """Unlock pages that were not moved, and give their targets back."""
        self._memory.pages.unlock(chunk)
        self._memory.pages.unlock(new)
        self._targets.give_back(new)

    def _complete(self, old: Pfns, new: Pfns) -> None:
        self.succeeded += finish_moves(self._memory, old, new, self._free)
        self.moves.append((old, new))


def finish_moves(memory: Memory, old: Pfns, new: Pfns, free: Callable[[Pfns], None]) -> int:
    """Free the old pages after their driver moved them, and the new pages that it did not take. int64[n].

    Return the number of pages: more than n if there are large folios among them.
    """
    pages = memory.pages
    if pages.folio_order is not None:
        sizes = pages.folio_sizes(new)
        old, new = pages_of(old, sizes), pages_of(new, sizes)
    pages.finish_target(new, old)
    free(old)
    unused = pages.mapping[new] == 0
    if np.count_nonzero(unused):
        memory.free(new[unused])
    return len(old)


def leading(flags: Bool) -> int:
    """Return how many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def checked(answers: I64, chunk: Pfns) -> tuple[int, int]:
    """Return how many pages were moved, and the answer for the page after them, 0 if there was none."""
    if not 0 < len(answers) <= len(chunk) or answers[:-1].any():
        raise PageStateError(
            f"answers {answers.tolist()} for {len(chunk)} pages: migrate_page must stop at the first error"
        )
    last = int(answers[-1])
    return len(answers) - (last != 0), last
