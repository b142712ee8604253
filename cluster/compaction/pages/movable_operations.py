"""The contract between the VM and drivers of movable pages that are not on the LRU lists.

A driver implements `MovableOperations`, registers with `Memory.register` and marks its pages with
`set_page_movable` while they are locked. Calls are array-valued: one call for a batch of pages, which are all
locked during it, with the same meaning as calls page by page in the order of the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Protocol, cast

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import (
    OWNER_SHIFT,
    PG_ISOLATED,
    PG_LOCKED,
    PG_LRU,
    PG_UNEVICTABLE,
    Kind,
    PageMap,
)
from cluster.mm.frames import PAGE_MAPPING_MOVABLE
from cluster.spec.errors import SimulationError

#: How LRU pages are called among the drivers.
LRU = "lru"


#: More attempts than anybody makes.
FOREVER = np.iinfo(np.int32).max


class IsolateMode(IntFlag):
    """isolate_mode_t (include/linux/mmzone.h)."""

    NONE = 0
    ASYNC_MIGRATE = 4
    UNEVICTABLE = 8


class MigrateMode(IntEnum):
    """enum migrate_mode (include/linux/migrate_mode.h)."""

    ASYNC = 0
    SYNC_LIGHT = 1
    SYNC = 2


class PageStateError(SimulationError):
    """A driver or the VM broke the contract; the message names the pages."""


class MovableOperations(Protocol):
    """What a driver does for the VM. All pages of one call belong to this driver and are locked."""

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        """Which of these pages the VM may have; those get PG_isolated. int64[n] -> bool[n]."""

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        """Move contents and metadata of pages[i] to newpages[i], in order, up to the first that fails.

        Answers 0 for each page moved; after the first other answer (-EAGAIN: try again, else: give up) the
        driver stops, as that page's target is offered to the next page. A moved page must have been cleared
        (`clear_page_movable`), its new page set (`set_page_movable`). int64[n], int64[n] -> int64[1..n].
        """

    def putback_page(self, pages: I64) -> None:
        """These isolated pages were not migrated; the driver has them back. int64[n]."""


class PredictsRetries(MovableOperations, Protocol):
    """A driver that can say beforehand what attempts will answer, so that the VM makes only those that move.

    What comes of it is the same as without.
    """

    def foresee(self, pages: I64, mode: MigrateMode) -> I64 | None:
        """How many attempts of each page from now on answer -EAGAIN, before one moves it; changes nothing.

        None if only trying can tell: if other answers are possible, isolation may be refused, or what happens
        to one page changes what another one answers. int64[n] -> int64[n].
        """

    def tried(self, pages: I64, times: I64) -> None:
        """In place of so many attempts of each page that answer -EAGAIN, as foreseen. int64[n], int64[n]."""


def foreseeing(operations: MovableOperations | None) -> PredictsRetries | None:
    """The same operations, if they can foresee anything."""
    return cast("PredictsRetries", operations) if hasattr(operations, "foresee") else None


def lock(pages: PageMap, pfns: I64) -> Bool:
    """trylock_page(): lock those that are not locked; which these are. bool[n]."""
    taken = ~pages.locked(pfns)
    pages.flags[pfns[taken]] |= PG_LOCKED
    return taken


def unlock(pages: PageMap, pfns: I64) -> None:
    """unlock_page()."""
    pages.flags[pfns] &= ~np.uint8(PG_LOCKED)


def set_page_movable(memory: Memory, pfns: I64, owner: int) -> None:
    """__SetPageMovable(): these locked pages are movable, by the operations registered as `owner`."""
    _must_be_locked(memory.pages, pfns)
    memory.pages.mapping[pfns] = owner << OWNER_SHIFT | PAGE_MAPPING_MOVABLE


def clear_page_movable(memory: Memory, pfns: I64) -> None:
    """__ClearPageMovable(): no operations any more; the tag bits stay, so that the VM knows the page."""
    _must_be_locked(memory.pages, pfns)
    memory.pages.mapping[pfns] = PAGE_MAPPING_MOVABLE


def release(memory: Memory, pfns: I64, *, keep: bool = False) -> None:
    """A driver gives up locked pages: not movable any more and, unless `keep`, its reference dropped."""
    clear_page_movable(memory, pfns)
    if not keep:
        unlock(memory.pages, pfns)
        memory.put(pfns)


def _must_be_locked(pages: PageMap, pfns: I64) -> None:
    if np.count_nonzero(pages.flags[pfns] & PG_LOCKED) < len(pfns):
        raise PageStateError(f"pages not locked: {pfns[~pages.locked(pfns)][:8].tolist()}")


def isolatable(pages: PageMap, start: int, stop: int, mode: IsolateMode) -> I64:
    """Pages of start..stop-1 that look movable, without any lock, ascending. int64[n]."""
    found = pages.page_movable_peek(slice(start, stop))
    flags = pages.flags[start:stop]
    if np.count_nonzero(flags):
        found &= flags & PG_ISOLATED == 0
        found |= flags & PG_LRU != 0
        if not mode & IsolateMode.UNEVICTABLE:
            found &= flags & PG_UNEVICTABLE == 0
    return found.nonzero()[0] + start


def still_movable(pages: PageMap, pfns: I64) -> I64:
    """Those of these pages, which looked movable before, that still do. int64[n] -> int64[0..n]."""
    movable = pages.page_movable_peek(pfns) | (pages.flags[pfns] & PG_LRU != 0)
    return pfns if np.count_nonzero(movable) == len(pfns) else pfns[movable]


def isolated(pages: PageMap, start: int, stop: int) -> int:
    """How many pages of start..stop-1 someone has isolated."""
    return int(np.count_nonzero(pages.flags[start:stop] & PG_ISOLATED))


def first_owner(pages: PageMap, pfns: I64) -> tuple[int, I64]:
    """The mapping word of the first page, and the pages up to the first with another one."""
    words = pages.mapping[pfns]
    same = words == words[0]
    if np.count_nonzero(same) == len(pfns):
        return int(words[0]), pfns
    return int(words[0]), pfns[: int(np.argmin(same))]


def same_owner(pages: PageMap, pfns: I64) -> Iterator[tuple[int, I64]]:
    """Cut into runs of pages with the same mapping word; the words and the runs."""
    while len(pfns):
        word, run = first_owner(pages, pfns)
        yield word, run
        pfns = pfns[len(run) :]


class Isolation:
    """isolate_movable_page() for a batch: `begin` locks the pages, `finish` asks the driver.

    Between the two, others see pages locked and not isolated. Afterwards `granted` (int64[m]) are isolated,
    with a reference more; the others are as before. `held`: references that the caller has of its own until
    then.
    """

    def __init__(self, memory: Memory, pfns: I64, mode: IsolateMode, held: int = 0) -> None:
        self._held = held
        self._memory = memory
        self._mode = mode
        self.asked = pfns
        self.granted = pfns[:0]
        self.locked = pfns[:0]

    def begin(self) -> None:
        """Take references and locks; locked pages are left alone."""
        pages = self._memory.pages
        taken = self.asked
        if np.count_nonzero(pages.flags[taken]):
            taken = taken[lock(pages, taken)]
            self._memory.vmstat.skipped_locked += len(self.asked) - len(taken)
            pages.flags[taken] |= PG_LOCKED
        else:
            pages.flags[taken] = PG_LOCKED
        pages.refcount[taken] += 1 + self._held
        self.locked = taken

    def finish(self) -> None:
        """Ask the drivers, mark what they grant, unlock."""
        pages = self._memory.pages
        granted = [self._ask(word, run) for word, run in same_owner(pages, self.locked)]
        if len(granted) == 1:
            self.granted = granted[0]
        elif granted:
            self.granted = np.concatenate(granted)
        if len(self.granted) == len(self.locked):
            pages.flags[self.granted] ^= PG_ISOLATED | PG_LOCKED
        else:
            pages.flags[self.granted] |= PG_ISOLATED
            unlock(pages, self.locked)
            self._memory.put(np.setdiff1d(self.locked, self.granted, assume_unique=True))
        if self._memory.on_isolate is not None:
            self._memory.on_isolate(self.asked, self.granted)
        if self._held:
            pages.refcount[self.locked] -= self._held - 1
            self._memory.put(self.locked)
        self.locked = self.locked[:0]

    def undo(self) -> None:
        """Instead of `finish`: nobody is asked, the pages are as before."""
        unlock(self._memory.pages, self.locked)
        self._memory.pages.refcount[self.locked] -= self._held
        self._memory.put(self.locked)
        self.locked = self.locked[:0]

    def _ask(self, word: int, run: I64) -> I64:
        """Those of pages with one mapping word that their driver grants; none if it is gone meanwhile."""
        operations = self._memory.operations_of(word)
        if operations is None:
            return run[:0]
        isolated = self._memory.pages.flags[run] & PG_ISOLATED
        if np.count_nonzero(isolated):
            run = run[isolated == 0]
        if len(run) == 0:
            return run
        granted = operations.isolate_page(run, self._mode)
        return run if np.count_nonzero(granted) == len(run) else run[granted]


class Putback:
    """putback_movable_pages(): isolated pages that were not migrated go back, in their order.

    `step` handles at most `grain` pages (all, if None), in two steps if a grain is given: lock, then call.
    """

    def __init__(self, memory: Memory, pfns: I64, grain: int | None = None) -> None:
        self._memory = memory
        self._left = pfns
        self._grain = grain
        self._locked = pfns[:0]
        self.waiting = False  #: for a page that someone else has locked

    @property
    def done(self) -> bool:
        return len(self._left) == 0 and len(self._locked) == 0

    def step(self) -> None:
        """Lock the next pages, or hand those locked to their drivers."""
        if len(self._locked):
            self._finish()
            return
        chunk = self._left[: self._grain]
        if self._memory.pages.any_flag(chunk, PG_LOCKED):
            chunk = chunk[: int(np.argmax(self._memory.pages.locked(chunk)))]
            if len(chunk) == 0:
                self._memory.vmstat.lock_waits += not self.waiting
                self.waiting = True
                return
        self.waiting = False
        self._left = self._left[len(chunk) :]
        self._memory.pages.flags[chunk] |= PG_LOCKED
        self._locked = chunk
        if self._grain is None:
            self._finish()

    def run(self) -> None:
        """All of it; only where nobody else can hold a lock."""
        while not self.done:
            self.step()

    def abandon(self) -> I64:
        """Instead of going on: the pages that are still isolated, unlocked."""
        unlock(self._memory.pages, self._locked)
        return np.concatenate([self._locked, self._left])

    def _finish(self) -> None:
        pages, locked = self._memory.pages, self._locked
        self._locked = locked[:0]
        for word, run in same_owner(pages, locked):
            if operations := self._memory.operations_of(word):
                operations.putback_page(run)
        pages.flags[locked] &= ~np.uint8(PG_ISOLATED | PG_LOCKED)
        self._memory.put(locked)


class LruPages:
    """Pages on the LRU lists, which need no driver: off the list while isolated, copied when migrated.

    Registered as an owner like a driver; its pages carry PG_lru and mapping words of other tags.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.owner = memory.register(self)
        self.isolated = 0  #: isolations granted so far

    @property
    def owners(self) -> dict[str, int]:
        """Numbers of owners, by what their pages are called in reports."""
        return {LRU: self.owner}

    def adopt(self, pfns: I64, tag: int) -> None:
        """These used pages are on the LRU lists; `tag`: PAGE_MAPPING_ANON or another. int64[n]."""
        pages = self.memory.pages
        pages.mapping[pfns] = self.owner << OWNER_SHIFT | tag
        pages.flags[pfns] |= PG_LRU
        pages.flags[pfns[pages.kind[pfns] == Kind.UNEVICTABLE]] |= PG_UNEVICTABLE

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        self.memory.pages.flags[pages] &= ~np.uint8(PG_LRU)
        self.isolated += len(pages)
        return np.ones(len(pages), np.bool_)

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        m = self.memory.pages
        m.mapping[newpages] = m.mapping[pages]
        m.content[newpages] = m.content[pages]
        m.flags[newpages] |= (m.flags[pages] & PG_UNEVICTABLE) | PG_LRU
        return np.zeros(len(pages), np.int64)

    def foresee(self, pages: I64, mode: MigrateMode) -> I64 | None:
        return np.zeros(len(pages), np.int64)

    def tried(self, pages: I64, times: I64) -> None:
        """They always move."""

    def putback_page(self, pages: I64) -> None:
        self.memory.pages.flags[pages] |= PG_LRU
