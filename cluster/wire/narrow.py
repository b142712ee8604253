"""Columns of mail to other processes in fewer bytes than their dtypes have: half of them, on the whole.

Most columns name pages in the order of the scan, or frames, so that neighbours differ little. A column of a
large table takes the first of these forms that fits:

- `Steps`: each value is the one before plus two bytes, but at the start of runs.
- `Offsets`: each value is a base plus one, two or four bytes.
- `Halves`: the upper half of each word is a base plus one or two bytes, the lower one is as it is.
- `Repeated`, for other types than int64: all values are equal.

Digests are like random numbers, and stay as they are. Columns of a process's own mail do, too, unless memory
is scarce: to narrow a column and to widen it takes as long as to copy it some times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from cluster.arrays.words import I64, U32, Array

#: The least average length of runs for which a column takes the form `Steps`.
_RUN = 32
_LARGEST_STEP = np.uint64((1 << 16) - 1)
_HALF = 32


class Repeated(NamedTuple):
    """One value, `rows` times."""

    value: np.generic
    rows: int

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return 0

    def part(self, low: int, high: int) -> Repeated:
        """Return the rows [low, high)."""
        return Repeated(self.value, high - low)


class Offsets(NamedTuple):
    """A base, and what each int64 is above it: uint8, uint16 or uint32."""

    base: int
    offsets: Array

    @property
    def rows(self) -> int:
        """The number of values."""
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.offsets.nbytes

    def part(self, low: int, high: int) -> Offsets:
        """Return the rows [low, high) as a view."""
        return Offsets(self.base, self.offsets[low:high])


class Steps(NamedTuple):
    """Runs of int64, each with its first value, and the steps from each value to the next."""

    #: uint16, or uint8; at the start of a run, the step has no meaning.
    steps: Array
    #: Where runs start, ascending, and their first values.
    starts: list[int]
    firsts: list[int]

    @property
    def rows(self) -> int:
        """The number of values."""
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.steps.nbytes

    def part(self, low: int, high: int) -> Steps:
        """Return the rows [low, high) as a view; a run must start at `low`."""
        first, last = bisect_left(self.starts, low), bisect_left(self.starts, high)
        starts = [start - low for start in self.starts[first:last]] if low else self.starts[:last]
        return Steps(self.steps[low:high], starts, self.firsts[first:last])


class Halves(NamedTuple):
    """The upper 32 bits of each int64, and the lower ones."""

    upper: Offsets
    lower: U32

    @property
    def rows(self) -> int:
        """The number of values."""
        return len(self.lower)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.upper.nbytes + self.lower.nbytes

    def part(self, low: int, high: int) -> Halves:
        """Return the rows [low, high) as a view."""
        return Halves(self.upper.part(low, high), self.lower[low:high])


#: A column in one of these forms. With an array, it has `nbytes` in common.
Narrow = Repeated | Offsets | Steps | Halves


def narrowed(column: Array, bounds: I64) -> Array | Narrow:
    """Return a column in a narrow form, or itself if none fits.

    bounds: the rows at which the column may be cut: 0, ..., its length, which is not 0.
    """
    if column.dtype != np.int64:
        digests = column.dtype == np.uint64 or column.ndim > 1
        return column if digests or column.min() < column.max() else Repeated(column[0], len(column))
    if (steps := _steps(column, bounds)) is not None:
        return steps
    least, most = int(column.min()), int(column.max())
    if most - least < 1 << 32:
        return _offsets(column, least, most)
    least, most = least >> _HALF, most >> _HALF
    if most - least < 1 << 16:
        return Halves(_offsets(column >> _HALF, least, most), column.astype(np.uint32))
    return column


def _offsets(column: I64, least: int, most: int) -> Offsets:
    return Offsets(least, (column - least).astype(np.min_scalar_type(most - least)))


def _steps(column: I64, bounds: I64) -> Steps | None:
    steps = np.empty(len(column), np.int64)
    np.subtract(column[1:], column[:-1], out=steps[1:])
    jumps = steps.view(np.uint64) > _LARGEST_STEP
    jumps[bounds[:-1]] = True
    if np.count_nonzero(jumps) * _RUN > len(column):
        return None
    starts = np.flatnonzero(jumps)
    return Steps(steps.astype(np.uint16), starts.tolist(), column[starts].tolist())


def widened(parts: Sequence[Array | Narrow]) -> Array:
    """Return the values of these parts of a column, in this order, in an array of its own."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    rows = sum(_rows(part) for part in parts)
    values = np.empty(rows, next(filter(None, map(_dtype, parts)), np.int64))
    at = 0
    for form, group in groupby(parts, type):
        alike = list(group)
        end = at + sum(_rows(part) for part in alike)
        _WIDEN[form](alike, values[at:end])
        at = end
    return values


def _rows(part: Array | Narrow) -> int:
    return len(part) if isinstance(part, np.ndarray) else part.rows


def _dtype(part: Array | Narrow) -> np.dtype[Any] | None:
    """Return the dtype of a part; None for int64 in a narrow form."""
    return part.value.dtype if isinstance(part, Repeated) else getattr(part, "dtype", None)


def _widen_arrays(parts: Sequence[Array], values: Array) -> None:
    np.concatenate(parts, out=values)


def _widen_repeated(parts: Sequence[Repeated], values: Array) -> None:
    values[:] = np.repeat([part.value for part in parts], [part.rows for part in parts])


def _widen_offsets(parts: Sequence[Offsets], values: I64) -> None:
    np.concatenate([part.offsets for part in parts], out=values)
    values += np.repeat([part.base for part in parts], [part.rows for part in parts])


def _widen_steps(parts: Sequence[Steps], values: I64) -> None:
    np.cumsum(np.concatenate([part.steps for part in parts]), out=values)
    starts, before = [], 0
    for part in parts:
        starts += [before + start for start in part.starts]
        before += part.rows
    firsts = [first for part in parts for first in part.firsts]
    values += np.repeat(firsts - values[starts], np.diff(starts, append=before))


def _widen_halves(parts: Sequence[Halves], values: I64) -> None:
    _widen_offsets([part.upper for part in parts], values)
    values <<= _HALF
    values |= np.concatenate([part.lower for part in parts])


_WIDEN: dict[type, Callable[[Any, Array], None]] = {
    np.ndarray: _widen_arrays,
    Repeated: _widen_repeated,
    Offsets: _widen_offsets,
    Steps: _widen_steps,
    Halves: _widen_halves,
}
