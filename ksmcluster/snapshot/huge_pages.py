"""Which captured huge pages processes map whole when they begin; others are simulated as small pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import distinct
from cluster.arrays.words import HUGE_SIZE, I64, empty
from ksmcluster.snapshot.metadata import Mapping
from ksmcluster.snapshot.schema import UNKNOWN

_MOMENT = 1 << 32
"""Numbers of huge pages are told apart by moment: they are below this."""


class _HugePages(NamedTuple):
    """First pages and numbers of huge pages that a process maps whole, and the numbers of all it maps."""

    bases: I64
    numbers: I64
    all_numbers: I64


_NOTHING = _HugePages(empty(), empty(), empty())


class HugePageFinder:
    """Takes the pages of a snapshot in its order; a process counts at the first moment at which it has pages.

    A huge page is placed whole if one process is the first to map all of its pages, at an aligned address
    in one mapping, and none of them is pinned. Processes that share it by a fork map it as captured.
    """

    def __init__(self) -> None:
        self._of: dict[int, _HugePages] = {}
        self._placed: list[I64] = [empty()]

    @property
    def in_parts(self) -> int:
        """How many huge pages are not placed; complete after `settle` of all processes."""
        known = distinct(np.sort(np.concatenate([empty(), *(of.all_numbers for of in self._of.values())])))
        return len(np.setdiff1d(known, np.concatenate(self._placed)))

    def bases(self, process: int) -> I64:
        """Return the first pages of huge pages that a process maps whole, ascending: int64[n]."""
        return self._of.get(process, _NOTHING).bases

    def add(self, moment: int, process: int, vpn: I64, huge: I64, mappings: Sequence[Mapping]) -> None:
        """Take the pages of a process at a moment, ascending; `huge` is UNKNOWN for small pages."""
        if process in self._of or not len(vpn):
            return
        rows = np.flatnonzero(huge != UNKNOWN)
        if not len(rows):
            self._of[process] = _NOTHING
            return
        last = np.minimum(rows + HUGE_SIZE - 1, len(vpn) - 1)
        whole = (vpn[rows] % HUGE_SIZE == 0) & (vpn[last] - vpn[rows] == HUGE_SIZE - 1)
        # Numbers change where huge pages do, so a run of equal ones is a single huge page.
        changes = np.cumsum(np.append(0, huge[1:] != huge[:-1]))
        whole &= changes[last] == changes[rows]
        starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
        whole &= np.searchsorted(starts, vpn[rows], "right") == np.searchsorted(starts, vpn[last], "right")
        numbers = huge + moment * _MOMENT
        first = rows[whole]
        self._of[process] = _HugePages(vpn[first], numbers[first], np.unique(numbers[rows]))

    def settle(self, process: int, shared: I64, pinned: I64) -> None:
        """Drop huge pages of which a process shares some pages, or has pinned ones; both ascend."""
        bases, numbers, all_numbers = self._of.get(process, _NOTHING)
        of_shared = _within(bases, shared)
        kept = ((of_shared == 0) | (of_shared == HUGE_SIZE)) & (_within(bases, pinned) == 0)
        self._of[process] = _HugePages(bases[kept], numbers[kept], all_numbers)
        self._placed.append(numbers[kept & (of_shared == 0)])


def _within(bases: I64, pages: I64) -> I64:
    """Return how many of the pages, ascending, are in each huge page: int64[n], int64[m] -> int64[n]."""
    found: I64 = np.searchsorted(pages, bases + HUGE_SIZE) - np.searchsorted(pages, bases)
    return found
