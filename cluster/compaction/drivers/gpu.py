"""A GPU's buffers: pages that cannot move while the device uses them."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.drivers.chance import check_share, check_whole, uniform
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import NEVER_MOVES, MigrateMode
from cluster.compaction.pages.page_map import PageKind


class Gpu(PageDriver):
    """Pages in use answer -EAGAIN: pinned pages, and a share `busy` of all pages at any attempt.

    busy 0..1: the device picks a page up and drops it again between one attempt and the next. The answers
    depend on the seed and on the attempts at each page, not on the batches of the attempts. Raises ValueError
    for another `busy`, or a seed that is no whole number.
    """

    kind = PageKind.GPU

    def __init__(self, memory: Memory, *, busy: float = 0.0, seed: int = 0) -> None:
        super().__init__(memory)
        check_share("busy", busy)
        check_whole("seed", seed)
        self.pinned: Bool = np.zeros(0, np.bool_)
        self._busy = busy
        self._seed = seed
        # by page number: attempts until the device has dropped the page, and how often that was drawn
        self._in_use: I64 = np.zeros(0, np.int64)
        self._draws: I64 = np.zeros(0, np.int64)

    def adopt(self, pfns: I64) -> I64:
        none = np.zeros(len(pfns), np.int64)
        self.pinned = np.concatenate([self.pinned, none.astype(np.bool_)])
        self._in_use = np.concatenate([self._in_use, none])
        self._draws = np.concatenate([self._draws, none])
        numbers = super().adopt(pfns)
        self._draw(numbers)
        return numbers

    def pin(self, numbers: I64) -> None:
        """Let the device work on these pages from now on."""
        self.pinned[numbers] = True

    def unpin(self, numbers: I64) -> None:
        """End what `pin` began."""
        self.pinned[numbers] = False

    def _draw(self, numbers: I64) -> None:
        """Draw how many attempts in a row meet a page in use, if each does with a chance of `busy`."""
        if not 0 < self._busy < 1:
            self._in_use[numbers] = NEVER_MOVES if self._busy else 0
            return
        chance = 1 - uniform(self._seed, numbers, self._draws[numbers])
        self._in_use[numbers] = np.log(chance) / np.log(self._busy)
        self._draws[numbers] += 1

    def answers(self, pages: I64, mode: MigrateMode) -> I64:
        numbers = self.page_at[pages]
        in_use = self._in_use[numbers] > 0
        busy = in_use | self.pinned[numbers]
        # `migrate_page` makes attempts up to the first page that does not move
        tried = slice(0, int(np.argmax(busy)) + 1 if busy.any() else None)
        self._in_use[numbers[tried]] -= in_use[tried]
        return np.where(busy, -errno.EAGAIN, 0)

    def predict_retries(self, pages: I64, mode: MigrateMode) -> I64:
        numbers = self.page_at[pages]
        return np.where(self.pinned[numbers], NEVER_MOVES, self._in_use[numbers])

    def tried(self, pages: I64, times: I64) -> None:
        numbers = self.page_at[pages]
        self._in_use[numbers] = np.maximum(self._in_use[numbers] - times, 0)

    def moved(self, newpages: I64, pages: I64) -> None:
        self._draw(self.page_at[newpages])
