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


def positions_of(blocks: I64, ascending: I64, positions: I64) -> I64:
    """Return the position of each block, `END` for those that are missing. int64[n] -> int64[n]."""
    if len(ascending) == 0:
        return np.full(len(blocks), END)
    row = np.minimum(np.searchsorted(ascending, blocks), len(ascending) - 1)
    return np.where(ascending[row] == blocks, positions[row], END)


class SplitTimes:
    """The try that splits each huge page (SPLIT_AT); a huge page that no visit tries to split is missing."""

    def __init__(self) -> None:
        #: Grows with every change.
        self.version = 0
        #: Ascending.
        self._blocks, self._positions, self._nths = empty(), empty(), empty()
        self._by_block: dict[int, SplitTime] | None = None

    def clear(self) -> None:
        """Forget all, for a new window."""
        self._set(empty(), empty(), empty())

    def update(self, blocks: I64, positions: I64, nths: I64) -> None:
        """Take in changes; position -1 means that there is no try any more."""
        order = np.argsort(blocks)
        blocks, positions, nths = blocks[order], positions[order], nths[order]
        kept, some = ~is_in(self._blocks, blocks), positions >= 0
        old = self._blocks[kept], self._positions[kept], self._nths[kept]
        new = blocks[some], positions[some], nths[some]
        blocks, positions, nths = (np.concatenate(column) for column in zip(old, new, strict=True))
        order = np.argsort(blocks)
        self._set(blocks[order], positions[order], nths[order])

    def change_to(self, blocks: I64, positions: I64, nths: I64) -> tuple[I64, I64, I64]:
        """Know these times alone, of ascending blocks; return what to give to `update` elsewhere."""
        _, same = self.compare(blocks, positions, nths)
        rows = np.flatnonzero(~same)
        gone = self._blocks[~is_in(self._blocks, blocks)]
        changed = (
            np.concatenate([blocks[rows], gone]),
            np.concatenate([positions[rows], np.full(len(gone), -1)]),
            np.concatenate([nths[rows], np.zeros(len(gone), np.int64)]),
        )
        self._set(blocks, positions, nths)
        return changed

    def _set(self, blocks: I64, positions: I64, nths: I64) -> None:
        self.version += 1
        self._blocks, self._positions, self._nths = blocks, positions, nths
        self._by_block = None

    def get(self, block: int) -> SplitTime | None:
        """Return the try that splits a huge page, None if none is known."""
        if self._by_block is None:
            times = zip(self._positions.tolist(), self._nths.tolist(), strict=True)
            self._by_block = dict(zip(self._blocks.tolist(), times, strict=True))
        return self._by_block.get(block)

    def positions(self, blocks: I64) -> I64:
        """Return the scan positions of the splits of huge pages, `END` for none. int64[n] -> int64[n]."""
        return positions_of(blocks, self._blocks, self._positions)

    def split(self) -> tuple[I64, I64]:
        """Return the blocks that are split in this window, ascending, and the scan positions."""
        rows = np.flatnonzero(self._positions < END)
        return self._blocks[rows], self._positions[rows]

    def known(self, blocks: I64) -> Bool:
        """Return for which huge pages there is a time: int64[n] -> bool[n]."""
        return is_in(blocks, self._blocks)

    def compare(self, blocks: I64, positions: I64, nths: I64) -> tuple[Bool, Bool]:
        """Return which tries come before the split of their huge pages, and which are those splits.

        A try of a huge page whose time is not known is neither.
        """
        if len(self._blocks) == 0:
            none = np.zeros(len(blocks), np.bool_)
            return none, none
        row = np.minimum(np.searchsorted(self._blocks, blocks), len(self._blocks) - 1)
        at, nth = self._positions[row], self._nths[row]
        there, same = self._blocks[row] == blocks, positions == at
        before = there & ((positions < at) | (same & (nths < nth)))
        return before, there & same & (nths == nth)
