"""Finds the huge pages, and parts of huge pages, that captured processes map at their start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import distinct, is_in
from cluster.arrays.words import HUGE_SIZE, I64, Bool, empty
from cluster.spec.captured_pages import CapturedParts
from ksmcluster.snapshot.metadata import Mapping
from ksmcluster.snapshot.schema import UNKNOWN

_MOMENT = 1 << 32
"""Upper bound of huge page numbers; numbers of different moments are combined with it."""


class _HugePages(NamedTuple):
    """First pages and numbers of a process's whole huge pages; pages and numbers of all its huge pages."""

    bases: I64
    numbers: I64
    vpn: I64
    number_of: I64


_NOTHING = _HugePages(empty(), empty(), empty(), empty())


class HugePageFinder:
    """Takes the pages of a snapshot in order; a process counts at the first moment at which it has pages.

    A huge page is placed whole if one process is the first to map all of its pages, at an aligned address
    in one mapping, and none of them is pinned. Of other huge pages, only pages that one process maps first
    are placed. Processes that share a huge page by a fork map it as captured.
    """

    def __init__(self) -> None:
        self._of: dict[int, _HugePages] = {}
        self._parts: dict[int, CapturedParts] = {}
        self._placed: list[I64] = [empty()]

    @property
    def in_parts(self) -> int:
        """Number of huge pages that are not placed; complete after `settle` of all processes."""
        known = distinct(np.concatenate([empty(), *(of.number_of for of in self._of.values())]))
        return len(np.setdiff1d(known, np.concatenate(self._placed)))

    def bases(self, process: int) -> I64:
        """Return the first pages of a process's whole huge pages, ascending: int64[n]."""
        return self._of.get(process, _NOTHING).bases

    def parts(self, process: int) -> CapturedParts:
        """Return pages of huge pages that a process maps first, but not as a whole."""
        return self._parts.get(process, CapturedParts.none())

    def add(self, moment: int, process: int, vpn: I64, huge: I64, mappings: Sequence[Mapping]) -> None:
        """Add the pages of a process at a moment, ascending; `huge` is UNKNOWN for small pages."""
        if process in self._of or not len(vpn):
            return
        rows = np.flatnonzero(huge != UNKNOWN)
        if not len(rows):
            self._of[process] = _NOTHING
            return
        last = np.minimum(rows + HUGE_SIZE - 1, len(vpn) - 1)
        whole = (vpn[rows] % HUGE_SIZE == 0) & (vpn[last] - vpn[rows] == HUGE_SIZE - 1)
        # Each huge page has its own number, so a run of equal numbers is a single huge page.
        changes = np.cumsum(np.append(0, huge[1:] != huge[:-1]))
        whole &= changes[last] == changes[rows]
        starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
        whole &= np.searchsorted(starts, vpn[rows], "right") == np.searchsorted(starts, vpn[last], "right")
        numbers = huge + moment * _MOMENT
        first = rows[whole]
        self._of[process] = _HugePages(vpn[first], numbers[first], vpn[rows], numbers[rows])

    def settle(self, process: int, shared: I64, pinned: I64) -> None:
        """Place huge pages, except those in which the process has pinned pages.

        `shared` are its pages that map other processes' frames. Both are ascending. Call it in process order.
        """
        bases, numbers, vpn, number_of = self._of.get(process, _NOTHING)
        of_shared = _within(bases, shared)
        kept = ((of_shared == 0) | (of_shared == HUGE_SIZE)) & (_within(bases, pinned) == 0)
        self._of[process] = _HugePages(bases[kept], numbers[kept], vpn, number_of)
        placed = numbers[kept & (of_shared == 0)]
        self._placed.append(placed)
        apart = ~np.isin(number_of, np.concatenate([*self._placed, number_of[is_in(vpn, pinned)]]))
        apart &= ~is_in(vpn, shared)
        apart[apart] = ~_of_another_size(vpn[apart], number_of[apart])
        self._parts[process] = CapturedParts(vpn[apart], number_of[apart])
        self._placed.append(np.unique(number_of[apart]))


def _of_another_size(vpn: I64, number_of: I64) -> Bool:
    """Return which pages form whole smaller folios: aligned, and a power of two in number."""
    _, which, count = np.unique(number_of, return_inverse=True, return_counts=True)
    least, greatest = np.full(len(count), np.iinfo(np.int64).max), np.zeros(len(count), np.int64)
    np.minimum.at(least, which, vpn)
    np.maximum.at(greatest, which, vpn)
    power = (count & (count - 1) == 0) & (count < HUGE_SIZE) & (count > 1)
    another: Bool = (power & (greatest - least == count - 1) & (least % count == 0))[which]
    return another


def _within(bases: I64, pages: I64) -> I64:
    """Count the pages (ascending) in each huge page: int64[n], int64[m] -> int64[n]."""
    found: I64 = np.searchsorted(pages, bases + HUGE_SIZE) - np.searchsorted(pages, bases)
    return found
