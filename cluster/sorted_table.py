"""Tables sorted by digest, for vectorised look-ups: what the kernel's trees are to the simulation."""

from __future__ import annotations

import numpy as np

from cluster.words import I64, U64, Bool


class SortedTable:
    """Rows of int64 columns under a uint64 digest, which may repeat; later rows of a digest come last."""

    def __init__(self, *names: str) -> None:
        self.digest = np.empty(0, np.uint64)
        self.columns: dict[str, I64] = {name: np.empty(0, np.int64) for name in names}

    def __len__(self) -> int:
        return len(self.digest)

    def __getitem__(self, name: str) -> I64:
        return self.columns[name]

    def rows(self, digests: U64) -> tuple[I64, I64]:
        """All rows of the given digests: for each, the index of its digest in `digests`, and the row."""
        low = np.searchsorted(self.digest, digests, "left")
        count = np.searchsorted(self.digest, digests, "right") - low
        which = np.repeat(np.arange(len(digests)), count)
        return which, expand(low, count)

    def find(self, digests: U64, name: str, values: I64) -> I64:
        """The row with each digest and value in column `name`; -1 where there is none."""
        which, row = self.rows(digests)
        hit = self.columns[name][row] == values[which]
        found = np.full(len(digests), -1)
        found[which[hit]] = row[hit]
        return found

    def insert(self, digests: U64, **columns: I64) -> None:
        """Adds rows; `digests` ascending."""
        at = np.searchsorted(self.digest, digests, "right")
        self.digest = np.insert(self.digest, at, digests)
        for name, values in columns.items():
            self.columns[name] = np.insert(self.columns[name], at, values)

    def remove(self, rows: I64) -> None:
        if len(rows) == 0:
            return
        keep: Bool = np.ones(len(self.digest), np.bool_)
        keep[rows] = False
        self.digest = self.digest[keep]
        for name, values in self.columns.items():
            self.columns[name] = values[keep]


def expand(start: I64, count: I64) -> I64:
    """The runs start[i], start[i] + 1, ... of count[i] numbers each, one behind the other."""
    total = int(count.sum())
    ends = np.cumsum(count)
    runs: I64 = np.arange(total) + np.repeat(start - (ends - count), count)
    return runs
