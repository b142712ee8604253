"""Swapped-out pages of one node's processes, and the swap cache (mm/swapfile.c, mm/swap_state.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8, U64, Array, Bool
from cluster.mm.page_table import PTE_SWAP
from cluster.spec.content import PAGE_SIZE

_ARRAYS = ("count", "cached", "digest")


class Swap:
    """Swap entries, named by the values that refer to them in page tables."""

    def __init__(self, *, with_bytes: bool) -> None:
        #: Page table entries that refer to it; an entry without any is free.
        self.count = np.empty(0, np.int64)
        #: The frame that the swap cache has of it, or -1.
        self.cached = np.empty(0, np.int64)
        self.digest = np.empty(0, np.uint64)
        self.data: U8 | None = np.empty((0, PAGE_SIZE), np.uint8) if with_bytes else None

    def add(self, digests: U64, pages: U8 | None) -> I64:
        """New entries with one reference each."""
        free = np.flatnonzero(self.count == 0)[: len(digests)]
        if len(free) < len(digests):
            old = len(self.count)
            self._grow(len(digests) - len(free))
            free = np.concatenate([free, np.arange(old, len(self.count))])
        self.count[free] = 1
        self.cached[free] = -1
        self.digest[free] = digests
        if self.data is not None and pages is not None:
            self.data[free] = pages
        ptes: I64 = PTE_SWAP - free
        return ptes

    def _grow(self, by: int) -> None:
        for name in _ARRAYS:
            old: Array = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(by, old.dtype)]))
        if self.data is not None:
            self.data = np.concatenate([self.data, np.zeros((by, PAGE_SIZE), np.uint8)])

    def hold(self, ptes: I64) -> None:
        """One reference more for each (they may repeat)."""
        np.add.at(self.count, PTE_SWAP - ptes, 1)

    def put(self, ptes: I64) -> I64:
        """One reference less for each (they may repeat); cached frames of entries that go."""
        if len(ptes) == 0:
            return ptes
        entries = np.unique(PTE_SWAP - ptes)
        np.subtract.at(self.count, PTE_SWAP - ptes, 1)
        gone = entries[self.count[entries] == 0]
        frames: I64 = self.cached[gone]
        self.cached[gone] = -1
        return frames[frames >= 0]

    def frame_of(self, ptes: I64) -> I64:
        """What the swap cache has of each; -1 for nothing."""
        frames: I64 = self.cached[PTE_SWAP - ptes]
        return frames

    def shared(self, ptes: I64) -> Bool:
        shared: Bool = self.count[PTE_SWAP - ptes] > 1
        return shared

    def cache(self, ptes: I64, frames: I64) -> None:
        self.cached[PTE_SWAP - ptes] = frames

    def entries_of(self, frames: I64) -> I64:
        """The entries that the swap cache has these frames for, as page table entries; 0 for none."""
        if len(self.cached) == 0:
            return np.zeros(len(frames), np.int64)
        order = np.argsort(self.cached)
        at = order[np.minimum(np.searchsorted(self.cached, frames, sorter=order), len(order) - 1)]
        return np.where(self.cached[at] == frames, PTE_SWAP - at, 0)

    def read(self, ptes: I64) -> tuple[Array, ...]:
        """Digests and, with bytes, the pages: the columns of FILL behind the frame."""
        entries = PTE_SWAP - ptes
        if self.data is None:
            return (self.digest[entries],)
        return self.digest[entries], self.data[entries]
