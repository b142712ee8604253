"""Tables sorted by digest, for vectorised look-ups. They stand for the kernel's stable and unstable trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.arrays.columns import is_in
from cluster.arrays.words import I64, Array, Digests


class SortedTable:
    """Rows of columns sorted by a uint64 digest.

    A digest may have several rows; they keep the order in which they were inserted. `digest` is uint64[n],
    each of `columns` is [n] of the dtype given for its name.
    """

    def __init__(self, **dtypes: type[np.signedinteger[Any]]) -> None:
        self.digest = np.empty(0, np.uint64)
        self.columns: dict[str, Array] = {name: np.empty(0, dtype) for name, dtype in dtypes.items()}

    def __len__(self) -> int:
        return len(self.digest)

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def rows(self, digests: Digests) -> tuple[I64, I64]:
        """Return all rows of the given digests: uint64[n] -> int64[k], int64[k].

        The first array has the index into `digests`, the second the row. Indices ascend.
        """
        there = np.flatnonzero(is_in(digests, self.digest))
        digests = digests[there]
        low = np.searchsorted(self.digest, digests, "left")
        count = np.searchsorted(self.digest, digests, "right") - low
        return np.repeat(there, count), expand(low, count)

    def find(self, digests: Digests, name: str, values: I64) -> I64:
        """Return the row with each digest and value of column `name`; -1 if there is none: int64[n]."""
        which, row = self.rows(digests)
        hit = self.columns[name][row] == values[which]
        found = np.full(len(digests), -1)
        found[which[hit]] = row[hit]
        return found

    def insert(self, digests: Digests, **columns: Array) -> None:
        """Insert rows; `digests` must ascend. Each column has one value for each digest."""
        if len(self) == 0:
            self.digest = digests.copy()
            for name, old in self.columns.items():
                self.columns[name] = columns[name].astype(old.dtype)
            return
        new = np.searchsorted(self.digest, digests, "right") + np.arange(len(digests))
        size = len(self.digest) + len(digests)
        old = np.ones(size, np.bool_)
        old[new] = False
        rows = np.flatnonzero(old)
        self.digest = _merged(self.digest, rows, digests, new)
        for name, column in self.columns.items():
            self.columns[name] = _merged(column, rows, columns[name], new)

    def remove(self, rows: I64) -> None:
        """Remove these rows: int64[k]."""
        if len(rows) == 0:
            return
        keep = np.ones(len(self.digest), np.bool_)
        keep[rows] = False
        left = np.flatnonzero(keep)
        self.digest = self.digest[left]
        for name, values in self.columns.items():
            self.columns[name] = values[left]


def _merged(old: Array, old_rows: I64, new: Array, new_rows: I64) -> Array:
    """Return a column with the old values at `old_rows` and the new ones at `new_rows`."""
    column = np.empty(len(old) + len(new), old.dtype)
    column[old_rows] = old
    column[new_rows] = new
    return column


def expand(start: I64, count: I64) -> I64:
    """Return the runs start[i], start[i] + 1, ... of count[i] numbers, joined: int64[sum(count)]."""
    total = int(count.sum())
    ends = np.cumsum(count)
    runs: I64 = np.arange(total) + np.repeat(start - (ends - count), count)
    return runs
