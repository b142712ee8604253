"""When huge pages are split in a window: what all nodes know of it while the window is being decided."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in
from cluster.arrays.words import I64, Bool, empty
from cluster.wire.window import END

#: Scan position of the visit, and which of the tries of this visit it is.
SplitTime = tuple[int, int]
#: No try splits the huge page: all fail.
NEVER: SplitTime = (END, 0)


class SplitTimes:
    """The try that splits each huge page (SPLIT_AT); a huge page that no visit tries to split is missing."""

    def __init__(self) -> None:
        self.times: dict[int, SplitTime] = {}
        #: Grows with every change.
        self.version = 0
        self._arrays: tuple[int, I64, I64, I64] = (-1, empty(), empty(), empty())

    def clear(self) -> None:
        """Forget all, for a new window."""
        self.times = {}
        self.version += 1

    def update(self, blocks: I64, positions: I64, nths: I64) -> None:
        """Take in changes; position -1 means that there is no try any more."""
        self.version += 1
        for block, position, nth in zip(blocks.tolist(), positions.tolist(), nths.tolist(), strict=True):
            if position < 0:
                self.times.pop(block, None)
            else:
                self.times[block] = (position, nth)

    def split(self) -> tuple[I64, I64]:
        """Return the blocks that are split in this window, ascending, and the scan positions."""
        blocks, positions, _ = self._sorted()
        rows = np.flatnonzero(positions < END)
        return blocks[rows], positions[rows]

    def known(self, blocks: I64) -> Bool:
        """Return for which huge pages there is a time: int64[n] -> bool[n]."""
        return is_in(blocks, self._sorted()[0])

    def compare(self, blocks: I64, positions: I64, nths: I64) -> tuple[Bool, Bool]:
        """Return which tries come before the split of their huge pages, and which are those splits.

        A try of a huge page whose time is not known is neither.
        """
        known, at, nth = self._sorted()
        if len(known) == 0:
            none = np.zeros(len(blocks), np.bool_)
            return none, none
        row = np.minimum(np.searchsorted(known, blocks), len(known) - 1)
        there = known[row] == blocks
        same = positions == at[row]
        before = there & ((positions < at[row]) | (same & (nths < nth[row])))
        return before, there & same & (nths == nth[row])

    def _sorted(self) -> tuple[I64, I64, I64]:
        if self._arrays[0] != self.version:
            rows = sorted((block, *time) for block, time in self.times.items())
            table = np.array(rows, np.int64).reshape(-1, 3)
            self._arrays = (self.version, table[:, 0], table[:, 1], table[:, 2])
        return self._arrays[1:]
