"""smart_scan: which pages ksmd skips, by how long they have not been merged (should_skip_rmap_item())."""

from __future__ import annotations

from functools import cache

import numpy as np

from cluster.arrays.words import I64, U8, Array, Bool, Slots

#: Visits to skip after a visit to a page of that age (skip_age()).
SKIP_AGE = np.array([1] * 4 + [2] * 2 + [4] * 3 + [8] * 247, np.uint8)
#: A page younger than this is never skipped.
SKIP_FROM_AGE = 3
#: Ages do not grow above OLDEST; from there on a page is visited once in CYCLE passes.
OLDEST = 255
CYCLE = 9


class SkipAges:
    """`age` and `remaining_skips` of the rmap_items, one slot a page; empty until `keep`.

    age uint8: visits without a merge, at most 255. remaining_skips uint8: visits still to be skipped.
    `PageTable` owns it, and forgets items that are freed; ksmd's scan does the rest.
    """

    def __init__(self) -> None:
        self._kept = False
        self._age: U8 = np.empty(0, np.uint8)
        self._remaining_skips: U8 = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._age)

    def keep(self, capacity: int) -> None:
        """Keep the ages of `capacity` slots from now on."""
        self._kept = True
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Grow to `capacity` slots, if ages are kept."""
        if self._kept:
            self._age = _grown(self._age, capacity)
            self._remaining_skips = _grown(self._remaining_skips, capacity)

    def forget(self, slots: Slots | slice) -> None:
        """Make pages as young as new ones."""
        if self._kept:
            self._age[slots] = 0
            self._remaining_skips[slots] = 0

    def set_visits(self, slots: Slots, visits: I64) -> None:
        """Give pages the age of a number of passes, skipped ones included, in which they never merged."""
        row = np.where(visits < OLDEST, visits, OLDEST + (visits - OLDEST) % CYCLE)
        self._age[slots], self._remaining_skips[slots] = (column[row] for column in after_visits())

    def would_skip(self, part: slice) -> Bool:
        """Return which of the slots the next visit would skip, if nothing has merged them. bool[n]."""
        skip: Bool = (self._age[part] >= SKIP_FROM_AGE) & (self._remaining_skips[part] != 0)
        return skip

    def visit(self, part: slice, aging: Bool) -> Bool:
        """Return which slots this visit skips; those that are `aging` get older. bool[n] -> bool[n]."""
        age, skips = self._age[part], self._remaining_skips[part]
        old = aging & (age >= SKIP_FROM_AGE)
        visited = old & (skips == 0)
        skipped: Bool = old & (skips != 0)
        skips[visited] = SKIP_AGE[age[visited]]
        skips[skipped] -= 1
        age[aging & (age != OLDEST)] += 1
        return skipped

    def first_visit(self, slots: Slots) -> None:
        """Let pages that are as young as new ones get older by a visit."""
        self._age[slots] = 1

    def undo_visit(self, slots: Slots) -> Bool:
        """Undo what the last visit did to these slots; return which of them it had skipped. bool[n].

        A page of age 0 did not get older at that visit.
        """
        self._age[slots] -= self._age[slots] != 0
        age, skips = self._age[slots], self._remaining_skips[slots]
        old = age >= SKIP_FROM_AGE
        # Just visited, a page has all its skips before it: no page younger by a visit has so many left.
        visited = old & (skips == SKIP_AGE[age])
        skipped: Bool = old & ~visited
        self._remaining_skips[slots[visited]] = 0
        self._remaining_skips[slots[skipped]] += 1
        return skipped


@cache
def after_visits() -> tuple[U8, U8]:
    """Return `age` and `remaining_skips` after each number of passes: uint8[OLDEST + CYCLE].

    After more passes they are those of a number that is less by whole cycles.
    """
    one = SkipAges()
    one.keep(1)
    ages, skips = (np.zeros(OLDEST + CYCLE, np.uint8) for _ in range(2))
    for row in range(len(ages)):
        ages[row], skips[row] = one._age[0], one._remaining_skips[0]
        one.visit(slice(0, 1), np.ones(1, np.bool_))
    return ages, skips


def _grown(column: Array, capacity: int) -> Array:
    new = np.zeros(capacity, column.dtype)
    new[: len(column)] = column
    return new
