"""A balloon: pages that a guest gave back to its host (mm/balloon_compaction.c)."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import PageKind


class Balloon(PageDriver):
    """Its pages hold nothing, so any of them moves, except while the balloon is being resized."""

    kind = PageKind.BALLOON
    steady = True

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.resizing = False

    def inflate(self, count: int) -> I64:
        """Take at most `count` pages out of use; return their numbers. int64[0..count]."""
        return self.allocate(count)

    def deflate(self, count: int) -> int:
        """Give back the `count` pages taken last, or all; return how many these were."""
        numbers = np.flatnonzero(self.frame_of != NO_PAGE)[-count:] if count > 0 else np.zeros(0, np.int64)
        self.free(numbers)
        return len(numbers)

    def answers(self, pages: I64, mode: MigrateMode) -> I64 | None:
        return np.full(len(pages), -errno.EAGAIN) if self.resizing else None
