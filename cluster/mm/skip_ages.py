"""smart_scan: which pages ksmd skips, by how long they have not been merged (should_skip_rmap_item())."""

from __future__ import annotations

from functools import cache

import numpy as np

from cluster.arrays.words import I64, U8, Bool, Slots

#: A page younger than this is never skipped.
SKIP_FROM_AGE = 3
#: Ages do not grow above OLDEST; from there on a page is visited once in CYCLE passes. The kernel's grow up
#: to 255, but all ages of 9 and more skip alike.
OLDEST = 12
CYCLE = 9
#: Visits to skip after a visit to a page of that age (skip_age()).
SKIP_AGE = np.array([1] * 4 + [2] * 2 + [4] * 3 + [8] * (OLDEST + 1 - 9), np.uint8)

_AGE_BITS = 4
_ONE_VISIT = np.uint8(1 << _AGE_BITS)
_SKIPS_MASK = np.uint8((1 << _AGE_BITS) - 1)


class SkipAges:
    """`age` and `remaining_skips` of the rmap_items, one slot a page; empty until `keep`.

    age: visits without a merge, at most OLDEST. remaining_skips: visits still to be skipped. Both are in one
    uint8, `age (4 bits) | remaining_skips (4)`. `PageTable` owns it, and forgets items that are freed; ksmd's
    scan does the rest.
    """

    def __init__(self) -> None:
        self._kept = False
        self._ages: U8 = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._ages)

    def keep(self, capacity: int) -> None:
        """Keep the ages of `capacity` slots from now on."""
        self._kept = True
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Grow to `capacity` slots, if ages are kept."""
        if self._kept:
            ages = np.zeros(capacity, np.uint8)
            ages[: len(self._ages)] = self._ages
            self._ages = ages

    def forget(self, slots: Slots | slice) -> None:
        """Make pages as young as new ones."""
        if self._kept:
            self._ages[slots] = 0

    def set_visits(self, slots: Slots, visits: I64) -> None:
        """Give pages the age of a number of passes, skipped ones included, in which they never merged."""
        row = np.where(visits < OLDEST, visits, OLDEST + (visits - OLDEST) % CYCLE)
        self._ages[slots] = _after_visits()[row]

    def would_skip(self, part: slice) -> Bool:
        """Return which of the slots the next visit would skip, if nothing has merged them. bool[n]."""
        return _skips(self._ages[part])

    def visit(self, part: slice, aging: Bool) -> Bool:
        """Return which slots this visit skips; those that are `aging` get older. bool[n] -> bool[n]."""
        ages = self._ages[part]
        skipped: Bool = aging & _skips(ages)
        # A product is quicker than a choice: it does not branch. It may wrap around.
        ages += (_after_visit().take(ages) - ages) * aging
        return skipped

    def first_visit(self, slots: Slots) -> None:
        """Let pages that are as young as new ones get older by a visit."""
        self._ages[slots] = _ONE_VISIT

    def undo_visit(self, slots: Slots) -> Bool:
        """Undo what the last visit did to these slots; return which of them it had skipped. bool[n].

        A page of age 0 did not get older at that visit.
        """
        age, skips = self._ages[slots] >> _AGE_BITS, self._ages[slots] & _SKIPS_MASK
        age -= age != 0
        old = age >= SKIP_FROM_AGE
        # Just visited, a page has all its skips before it: no page younger by a visit has so many left.
        visited = old & (skips == SKIP_AGE[age])
        skipped: Bool = old & ~visited
        skips[visited] = 0
        skips[skipped] += 1
        self._ages[slots] = age << _AGE_BITS | skips
        return skipped


def _skips(ages: U8) -> Bool:
    skips: Bool = (ages >= SKIP_FROM_AGE * _ONE_VISIT) & ((ages & _SKIPS_MASK) != 0)
    return skips


@cache
def _after_visit() -> U8:
    """Return what a visit makes of each byte of a page that is aging: uint8[256]."""
    ages = np.arange(256)
    age, skips = np.minimum(ages >> _AGE_BITS, OLDEST), ages & _SKIPS_MASK
    visited = np.where(age < SKIP_FROM_AGE, skips, SKIP_AGE[age])
    skips = np.where(_skips(ages.astype(np.uint8)), skips - 1, visited)
    after: U8 = (np.minimum(age + 1, OLDEST) << _AGE_BITS | skips).astype(np.uint8)
    return after


@cache
def _after_visits() -> U8:
    """Return the byte of a page after each number of passes: uint8[OLDEST + CYCLE].

    After more passes it is that of a number that is less by whole cycles.
    """
    ages = [0]
    while len(ages) < OLDEST + CYCLE:
        ages.append(int(_after_visit()[ages[-1]]))
    return np.array(ages, np.uint8)
