"""A GPU's buffers: pages that cannot move while the device uses them."""

from __future__ import annotations

import errno

import numpy as np

from cluster.migration.drivers.base import PageDriver
from cluster.migration.drivers.chance import happens
from cluster.migration.memory import Memory
from cluster.migration.movable import MigrateMode
from cluster.migration.pages import Kind
from cluster.words import I64, Bool


class Gpu(PageDriver):
    """Pages in use answer -EAGAIN: those pinned by name, and a share `busy` of all at any attempt.

    busy 0..1: the device picks a page up and drops it again between one attempt and the next. Same seed, same
    answers, in whatever batches the pages are asked for.
    """

    kind = Kind.GPU

    def __init__(self, memory: Memory, *, busy: float = 0.0, seed: int = 0) -> None:
        super().__init__(memory)
        self.pinned: Bool = np.zeros(0, np.bool_)
        self._attempts: I64 = np.zeros(0, np.int64)
        self._busy = busy
        self._seed = seed

    def adopt(self, pfns: I64) -> I64:
        self.pinned = np.concatenate([self.pinned, np.zeros(len(pfns), np.bool_)])
        self._attempts = np.concatenate([self._attempts, np.zeros(len(pfns), np.int64)])
        return super().adopt(pfns)

    def pin(self, numbers: I64) -> None:
        """The device works on these pages from now on."""
        self.pinned[numbers] = True

    def unpin(self, numbers: I64) -> None:
        """It does not any more."""
        self.pinned[numbers] = False

    def answers(self, pages: I64, mode: MigrateMode) -> I64:
        numbers = self.page_at[pages]
        busy = self.pinned[numbers]
        if self._busy:
            busy = busy | happens(self._busy, self._seed, numbers, self._attempts[numbers])
        tried = numbers[: int(np.argmax(busy)) + 1] if busy.any() else numbers
        self._attempts[tried] += 1
        return np.where(busy, -errno.EAGAIN, 0)
