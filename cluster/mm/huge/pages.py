"""Which huge pages a PMD maps, and which are partly unmapped (mm/huge_memory.c).

A huge page is 512 aligned frames of one node, and 512 aligned virtual pages of each process that maps it. The
frame words and the bit HUGE of `PageTable` say which pages are part of one. This says the rest, by the first
slot of the 512 virtual pages (their base).
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in
from cluster.arrays.words import HUGE_SIZE, I64, Bool, Slots, empty


class HugePages:
    """Huge pages of one node's processes."""

    def __init__(self) -> None:
        #: Whether there ever was a huge page; without any, nothing else here has to be asked.
        self.used = False
        #: Bases mapped by a PMD, ascending: huge pages, and the huge zero page.
        self.pmds: Slots = empty()
        self.zero: Slots = empty()
        #: Bases at which a PMD has mapped a huge page at any time, ascending.
        self.ever: Slots = empty()
        #: Bases that have kept a page table, with or without entries.
        self.tables: set[int] = set()
        #: Blocks that are partly unmapped (the deferred split queue). Freed blocks may stay in it.
        self.deferred: set[int] = set()

    def map(self, bases: Slots) -> None:
        """Map huge pages by PMDs."""
        self.used = True
        self.pmds = np.union1d(self.pmds, bases)
        self.ever = np.union1d(self.ever, bases)
        self.tables.difference_update(bases.tolist())

    def map_zero(self, bases: Slots) -> None:
        """Map the huge zero page."""
        self.used = True
        self.zero = np.union1d(self.zero, bases)

    def by_pmd(self, bases: Slots) -> Bool:
        """Return which bases a PMD maps, be it to a huge page or the huge zero page: int64[n] -> bool[n]."""
        return is_in(bases, self.pmds) | is_in(bases, self.zero)

    def unmap(self, bases: Slots) -> int:
        """Forget the PMDs of these bases; return how many had one."""
        before = len(self.pmds) + len(self.zero)
        self.pmds = self.pmds[~np.isin(self.pmds, bases)]
        self.zero = self.zero[~np.isin(self.zero, bases)]
        return before - len(self.pmds) - len(self.zero)

    def copy(self, start: int, pages: int, to: int) -> None:
        """Map at slots `to`, ... what PMDs map at slots `start`, ... (copy_huge_pmd())."""
        if self.used:
            for bases, add in ((self.pmds, self.map), (self.zero, self.map_zero)):
                add(bases[(bases >= start) & (bases < start + pages)] + (to - start))
            self.tables |= {base + to - start for base in self.tables if start <= base < start + pages}

    def release(self, start: int, pages: int) -> None:
        """Forget slots `start`, ..., in which nothing is mapped; other processes may get them."""
        if self.used:
            self.ever = self.ever[(self.ever < start) | (self.ever >= start + pages)]
            self.tables = {base for base in self.tables if not start <= base < start + pages}

    def rename(self, old: I64, new: I64) -> None:
        """Follow huge pages that have migrated: their blocks before and after."""
        if self.deferred:
            names = dict(zip(old.tolist(), new.tolist(), strict=True))
            # what was at the new place before is gone
            there = self.deferred - (set(names.values()) - names.keys())
            self.deferred = {names.get(block, block) for block in there}

    def validate(self, huge: Slots) -> None:
        """Raise AssertionError unless the PMDs map slots with the bit HUGE, which are `huge`."""
        inside = (self.pmds[:, None] + np.arange(HUGE_SIZE)).ravel()
        assert np.isin(inside, huge).all(), "a PMD maps a small page"
