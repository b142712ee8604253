"""Swapped-out pages of one node's processes, and the swap cache (mm/swapfile.c, mm/swap_state.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import find_unsorted
from cluster.arrays.words import I64, U8, Array, Bool, Digests, FrameWords
from cluster.mm.page_state import PTE_SWAP
from cluster.mm.sparse.stable_node_exceptions import renamed
from cluster.spec.content import PAGE_SIZE

_ARRAYS = ("count", "cached", "digest")


class Swap:
    """Swap entries, named by the values that refer to them in page tables (`PTE_SWAP` - number).

    Page faults and pageout change it; `rename_frames` follows migrated frames.
    """

    def __init__(self, *, with_bytes: bool) -> None:
        #: int64: how many page table entries refer to the entry; without any it is free.
        self.count = np.empty(0, np.int64)
        #: int64: the frame that the swap cache has for the entry; -1 for none. Frames are distinct.
        self.cached = np.empty(0, np.int64)
        #: uint64: digest of the page; with bytes, `data` has the page, uint8[n, PAGE_SIZE].
        self.digest = np.empty(0, np.uint64)
        self.data: U8 | None = np.empty((0, PAGE_SIZE), np.uint8) if with_bytes else None

    def add(self, digests: Digests, pages: U8 | None) -> I64:
        """Return new entries, with one reference each; `pages` uint8[n, PAGE_SIZE]."""
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
        """Add a reference to each entry; entries may repeat."""
        np.add.at(self.count, PTE_SWAP - ptes, 1)

    def put(self, ptes: I64) -> FrameWords:
        """Drop a reference to each entry; entries may repeat. Return cached frames of entries without any."""
        if len(ptes) == 0:
            return ptes
        entries = np.unique(PTE_SWAP - ptes)
        np.subtract.at(self.count, PTE_SWAP - ptes, 1)
        gone = entries[self.count[entries] == 0]
        frames: FrameWords = self.cached[gone]
        self.cached[gone] = -1
        return frames[frames >= 0]

    def frame_of(self, ptes: I64) -> FrameWords:
        """Return the frame that the swap cache has for each entry; -1 for none."""
        frames: FrameWords = self.cached[PTE_SWAP - ptes]
        return frames

    def shared(self, ptes: I64) -> Bool:
        """Return which entries have more than one reference."""
        shared: Bool = self.count[PTE_SWAP - ptes] > 1
        return shared

    def cache(self, ptes: I64, frames: FrameWords) -> None:
        """Put frames into the swap cache, or take them out of it (-1)."""
        self.cached[PTE_SWAP - ptes] = frames

    def entries_of(self, frames: FrameWords) -> I64:
        """Return the page table entries that the swap cache has these frames for; 0 for none."""
        at = find_unsorted(self.cached, frames)
        return np.where(at >= 0, PTE_SWAP - at, 0)

    def rename_frames(self, old: FrameWords, new: FrameWords) -> None:
        """Follow frames of the swap cache that have migrated, or have become KSM frames."""
        self.cached = renamed(self.cached, old, new)

    def read(self, ptes: I64) -> tuple[Array, ...]:
        """Return digests and, with bytes, pages: the columns of a FILL message after the frame."""
        entries = PTE_SWAP - ptes
        if self.data is None:
            return (self.digest[entries],)
        return self.digest[entries], self.data[entries]
