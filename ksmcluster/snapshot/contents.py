"""Maps digests of 128 bits to content names of 64 bits: different digests get different names.

A name is the first half of the digest (`content_ids`). If two digests of a scenario have equal first
halves, one of them gets a free number.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.columns import distinct
from ksmcluster.snapshot.schema import content_ids

#: Maps digests, uint8[n, 16], and zero flags, bool[n], to names, uint64[n].
ContentNames = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint64]]


class CheckedNames:
    """Names contents as `content_ids` does, and detects different digests with the same name."""

    def __init__(self) -> None:
        # first * a + second * b: digests with equal first halves never have the same sum, because b is odd;
        # other digests have it only by chance.
        self._factors = [np.uint64(secrets.randbits(64) | 1) for _ in range(2)]
        self._names: list[NDArray[np.uint64]] = []
        self._sums: list[NDArray[np.uint64]] = []

    def __call__(self, digests: NDArray[np.uint8], zero: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """Return the names of digests."""
        names = content_ids(digests, zero)
        halves = digests.view("<u8")
        sums = halves[:, 0] * self._factors[0]
        sums += halves[:, 1] * self._factors[1]
        sums[zero] = 0
        for kept, found in ((self._names, names), (self._sums, sums)):
            kept.append(distinct(found))
        return names

    def clash(self) -> bool:
        """Return whether two of the digests have the same name. Forgets the digests."""
        names, sums = (_count(parts) for parts in (self._names, self._sums))
        return names != sums


def _count(parts: list[NDArray[np.uint64]]) -> int:
    joined = np.concatenate([np.zeros(1, np.uint64), *parts])
    parts.clear()
    return len(distinct(joined))


class CollectedDigests:
    """Names contents as `content_ids` does, and stores the digests."""

    def __init__(self) -> None:
        self._halves: list[NDArray[np.uint64]] = []

    def __call__(self, digests: NDArray[np.uint8], zero: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """Return the names of digests."""
        self._halves.append(np.unique(digests[~zero].view("<u8").astype(np.uint64), axis=0))
        return content_ids(digests, zero)

    def free_names(self) -> ContentNames:
        """Return a function that names digests uniquely; among equal names, the smallest digest keeps it."""
        halves = np.unique(np.concatenate([np.empty((0, 2), np.uint64), *self._halves]), axis=0)
        names = np.maximum(halves[:, 0], 1)
        halves, names = (column[np.lexsort((*halves.T[::-1], names))] for column in (halves, names))
        again = np.flatnonzero(names[1:] == names[:-1]) + 1
        taken = distinct(names)
        free = np.setdiff1d(np.arange(2, 2 + len(names), dtype=np.uint64), taken)[: len(again)]
        renamed = dict(zip(map(tuple, halves[again].tolist()), free.tolist(), strict=True))
        clashing = distinct(names[again])

        def name(digests: NDArray[np.uint8], zero: NDArray[np.bool_]) -> NDArray[np.uint64]:
            found = content_ids(digests, zero)
            for row in np.flatnonzero(np.isin(found, clashing) & ~zero).tolist():
                found[row] = renamed.get(tuple(digests[row].view("<u8").tolist()), found[row])
            return found

        return name
