"""Choose, sort and search rows of columns with few passes over memory.

A column is a one-dimensional array; a row is an index into columns of the same length.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U16, U64, Array, Bool

#: With fewer than one value in so many, marking them takes longer than sorting them.
_DENSE = 64


def rows_where(chosen: Bool) -> I64 | slice:
    """Return an index of the chosen rows: bool[n] -> int64[k], or the full slice if all are chosen.

    Indexing with it is far quicker than with the mask; a slice gives a view, not a copy.
    """
    return slice(None) if chosen.all() else np.flatnonzero(chosen)


def rows_with(flags: U16, some: int) -> I64:
    """Return the rows that have at least one of the flags `some`: uint16[n] -> int64[k].

    numpy finds nonzero bools several times as quickly as nonzero numbers.
    """
    return np.flatnonzero((flags & some) != 0)


def run_of(rows: I64) -> I64 | slice:
    """Return `rows` as a slice, which is far quicker, if they ascend by one; otherwise `rows` itself."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def taken(column: Array, rows: I64 | slice) -> Array:
    """Return a copy of these rows of the column."""
    part: Array = column[rows]
    return part.copy() if isinstance(rows, slice) else part


def changes(column: Array) -> Bool:
    """Return which rows differ from the row before: [n] -> bool[n]. The first row counts as different."""
    differs = np.ones(len(column), np.bool_)
    np.not_equal(column[1:], column[:-1], out=differs[1:])
    return differs


def counts_in_runs(chosen: Bool, starts: I64) -> I64:
    """Return how many rows are chosen from each start on, up to the next: bool[n], int64[k] -> int64[k].

    Starts ascend and are distinct.
    """
    # A sum of int64 would copy the rows to eight bytes each.
    counts: I64 = np.add.reduceat(chosen.view(np.uint8), starts, dtype=np.int32).astype(np.int64)
    return counts


def distinct(column: Array) -> Array:
    """Return the distinct values, ascending. Sorting is several times quicker than np.unique's hashing."""
    column = np.sort(column)
    return column[rows_where(changes(column))]


def distinct_below(limit: int, column: I64) -> I64:
    """Return the distinct values, ascending; all must be in 0 .. limit-1."""
    if len(column) * _DENSE < limit:
        return distinct(column)
    there = np.zeros(limit, np.bool_)
    there[column] = True
    return np.flatnonzero(there)


def is_in(values: Array, ascending: Array) -> Bool:
    """Return which values occur in `ascending`, which is sorted: [n], [m] -> bool[n]."""
    if len(ascending) == 0:
        return np.zeros(len(values), np.bool_)
    at = np.searchsorted(ascending, values)
    found: Bool = ascending[np.minimum(at, len(ascending) - 1)] == values
    return found


def is_in_runs(values: Array, ascending: Array) -> Bool:
    """Do as `is_in`, quicker where equal values follow each other."""
    starts = np.flatnonzero(changes(values))
    return np.repeat(is_in(values[starts], ascending), np.diff(starts, append=len(values)))


def find_unsorted(keys: Array, wanted: Array) -> I64:
    """Return the index in `keys` of each wanted value, -1 where it is missing: [k], [n] -> int64[n].

    `keys` may be in any order. If a key repeats, the index is that of any of its copies.
    """
    if len(keys) == 0:
        return np.full(len(wanted), -1)
    low = keys.min()
    size = int(keys.max()) - int(low) + 1
    if size <= 4 * len(wanted):
        return _find_dense(keys - low, wanted - low, size)
    order = np.argsort(keys)
    ascending = keys[order]
    at = np.searchsorted(ascending, wanted)
    np.minimum(at, len(keys) - 1, out=at)
    found = order[at]
    found[ascending[at] != wanted] = -1
    return found


def _find_dense(keys: Array, wanted: Array, size: int) -> I64:
    """Return the index in `keys`, which are in [0, `size`), of each wanted value, -1 where it is missing."""
    # The last entry is that of all values outside.
    index = np.full(size + 1, -1)
    index[keys] = np.arange(len(keys))
    found: I64 = index[np.where((wanted >= 0) & (wanted < size), wanted, size)]
    return found


def order_by(first: U64, then: I64 | None = None) -> tuple[I64, U64]:
    """Return the indices that sort rows by `first`, then by `then`, and `first` sorted.

    uint64[n], int64[n] -> int64[n], uint64[n]. The sort is stable.
    """
    if then is None or not (then[1:] < then[:-1]).any():
        return _packed(first)
    order = np.argsort(then, kind="stable")
    packed, found = _packed(first[order])
    return order[packed], found


def _packed(words: U64) -> tuple[I64, U64]:
    """Return the indices that sort the words stably, and the words sorted.

    First try: put the index of each word below its high bits, and sort these once. If the high bits do not
    tell all different words apart, sort again by rank.
    """
    if len(words) == 0:
        return np.empty(0, np.int64), words
    low = np.uint64((1 << len(words).bit_length()) - 1)
    packed = words << np.uint64(64 - int(words.max()).bit_length())
    packed &= ~low
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    order = np.bitwise_and(packed, low, out=packed)
    found = words[order]
    if (found[1:] < found[:-1]).any():
        quick = np.argsort(words)
        packed = np.cumsum(changes(words[quick]), dtype=np.uint64) * (low + np.uint64(1))
        packed |= quick.view(np.uint64)
        packed.sort()
        order = np.bitwise_and(packed, low, out=packed)
        found = words[order]
    return order.view(np.int64), found
