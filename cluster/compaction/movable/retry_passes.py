"""The passes of migrate_pages() over its pages: where -EAGAIN leads to a retry."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, Pfns

MAX_BATCH = 512  #: pages of a batch: its retries come before the next batch begins
ASYNC_PASSES = 3  #: attempts in async mode that come before those in another mode
MAX_PASSES = 10  #: migrate calls for a page that answers -EAGAIN
WAIT_AFTER_PASS = 2  #: later passes wait for a locked page, unless the mode is async


class RetryPasses:
    """The pages of one call of migrate_pages() that have no final answer yet.

    The pages are worked off in batches, and each batch in passes. `pending` (int64[n]) are the pages to be
    tried in this pass. A page that answers -EAGAIN goes to `retry`; once no page is pending,
    `begin_next_pass` makes those in `retry` pending again, in up to MAX_PASSES passes. `number`: of the pass.
    """

    def __init__(self, pfns: Pfns, batch: int | None) -> None:
        self._size = batch or len(pfns)
        self._later = pfns
        self.pending: Pfns = pfns[:0]
        self.retry: list[int] = []
        self.number = 0
        self.begin_batch()

    def begin_batch(self) -> bool:
        """Make the next batch pending; False if there is none."""
        more = len(self._later) > 0
        self.pending, self._later = self._later[: self._size], self._later[self._size :]
        self.number = 0
        return more

    def begin_next_pass(self) -> bool:
        """Make the pages to retry pending again; False if there are none, or the last pass is over."""
        if not self.retry or self.number + 1 >= MAX_PASSES:
            return False
        self.pending, self.retry = np.array(self.retry, np.int64), []
        self.number += 1
        return True

    def tried(self, count: int) -> None:
        """Drop the first `count` pending pages, which were tried."""
        self.pending = self.pending[count:]

    def try_again(self, pfn: int) -> None:
        """Try a page that answered -EAGAIN, or was locked, in the next pass."""
        self.retry.append(pfn)

    def give_up(self) -> list[int]:
        """Return the pages that answered -EAGAIN in every pass; they are not tried again."""
        given_up, self.retry = self.retry, []
        return given_up

    def remaining(self) -> tuple[Pfns, I64 | None]:
        """Return the rest of the batch in the order of its attempts, and the passes behind each page.

        None for the passes if there are none yet. int64[n], int64[n].
        """
        if not self.number and not self.retry:
            return self.pending, None
        made = np.repeat([self.number + 1, self.number], [len(self.retry), len(self.pending)])
        return np.concatenate([np.array(self.retry, np.int64), self.pending]), made

    def go_to(self, number: int, retry: Pfns, untried: Pfns) -> None:
        """Be in this pass, in which `retry` answered -EAGAIN and `untried` were not tried yet."""
        self.retry, self.pending = retry.tolist(), untried
        self.number = number

    @property
    def begun(self) -> bool:
        """A page was tried in vain."""
        return self.number > 0 or len(self.retry) > 0

    def left(self) -> Pfns:
        """Return all pages without a final answer: to retry, pending, of later batches."""
        return np.concatenate([np.array(self.retry, np.int64), self.pending, self._later])
