"""Rows of columns, chosen and sorted with few passes over memory."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U16, U64, Array, Bool

#: With fewer than one value in so many, marking them takes longer than sorting them.
_DENSE = 64


def rows_where(chosen: Bool) -> I64 | slice:
    """An index of the chosen rows: far quicker than the mask itself, and a view if all are chosen."""
    return slice(None) if chosen.all() else np.flatnonzero(chosen)


def rows_with(flags: U16, some: int) -> I64:
    """Rows that have some of these flags. numpy finds bools several times as quickly as numbers."""
    return np.flatnonzero((flags & some) != 0)


def run_of(rows: I64) -> I64 | slice:
    """An index of these rows: a slice, which is far quicker, if they lie side by side, ascending."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def taken(column: Array, rows: I64 | slice) -> Array:
    """A copy of these rows."""
    part: Array = column[rows]
    return part.copy() if isinstance(rows, slice) else part


def changes(column: Array) -> Bool:
    """Whether each row differs from the one before; the first does. bool[n]."""
    differs = np.ones(len(column), np.bool_)
    np.not_equal(column[1:], column[:-1], out=differs[1:])
    return differs


def distinct(column: Array) -> Array:
    """The distinct values, ascending. Sorting is several times quicker than np.unique's hashing."""
    column = np.sort(column)
    return column[rows_where(changes(column))]


def distinct_below(limit: int, column: I64) -> I64:
    """The distinct values, ascending, none negative and all below `limit`."""
    if len(column) * _DENSE < limit:
        return distinct(column)
    there = np.zeros(limit, np.bool_)
    there[column] = True
    return np.flatnonzero(there)


def is_in(values: Array, ascending: Array) -> Bool:
    """Which values are among the others. bool[n]."""
    if len(ascending) == 0:
        return np.zeros(len(values), np.bool_)
    at = np.searchsorted(ascending, values)
    found: Bool = ascending[np.minimum(at, len(ascending) - 1)] == values
    return found


def find_unsorted(keys: Array, wanted: Array) -> I64:
    """Return the index in `keys` of each wanted value, -1 where it is missing: [k], [n] -> int64[n].

    `keys` may be in any order. If a key repeats, the index is that of any of its copies.
    """
    if len(keys) == 0:
        return np.full(len(wanted), -1)
    order = np.argsort(keys)
    ascending = keys[order]
    at = np.searchsorted(ascending, wanted)
    np.minimum(at, len(keys) - 1, out=at)
    found = order[at]
    found[ascending[at] != wanted] = -1
    return found


def order_by(first: U64, then: I64 | None = None) -> tuple[I64, U64]:
    """Indices that sort by `first`, then by `then`, equal rows in their order; and `first` sorted."""
    if then is None or not (then[1:] < then[:-1]).any():
        return _packed(first)
    order = np.argsort(then, kind="stable")
    packed, found = _packed(first[order])
    return order[packed], found


def _packed(words: U64) -> tuple[I64, U64]:
    """Indices that sort the words, equal ones in their order, and the words sorted.

    One sort of the words' high bits above the index, if those tell different words apart as far as needed.
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
