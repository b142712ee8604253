"""A driver that fails at random in every way the contract allows."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.drivers.chance import check_share, check_whole, happens
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import PageKind

_REFUSE, _AGAIN, _GIVE_UP, _NO_MEMORY, _RELEASE = range(5)


class Faulty(PageDriver):
    """Rates 0..1: `refuse` isolation, answer -EAGAIN (`again`), an error (`fail`), -ENOMEM (`no_memory`).

    `release`: migrate_page gives up another page, isolated or not, like a driver that frees memory meanwhile.
    """

    kind = PageKind.MOVABLE

    def __init__(
        self,
        memory: Memory,
        *,
        refuse: float = 0.0,
        again: float = 0.0,
        fail: float = 0.0,
        no_memory: float = 0.0,
        release: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(memory)
        self.released: list[int] = []
        rates = {"refuse": refuse, "again": again, "fail": fail, "no_memory": no_memory, "release": release}
        for name, rate in rates.items():
            check_share(name, rate)
        check_whole("seed", seed)
        self._rates = tuple(rates.values())
        self._seed = seed
        self._calls = 0

    def adopt(self, pfns: I64) -> I64:
        numbers = super().adopt(pfns)
        self.content[pfns] = numbers + 1
        return numbers

    def _strikes(self, which: int, pages: I64) -> Bool:
        self._calls += 1
        call = np.full(len(pages), self._calls)
        return happens(self._rates[which], self._seed, self.page_at[pages], call, np.full(len(pages), which))

    def may_isolate(self, pages: I64, mode: IsolateMode) -> Bool:
        return ~self._strikes(_REFUSE, pages)

    def answers(self, pages: I64, mode: MigrateMode) -> I64:
        answers = np.zeros(len(pages), np.int64)
        answers[self._strikes(_NO_MEMORY, pages)] = -errno.ENOMEM
        answers[self._strikes(_GIVE_UP, pages)] = -errno.EBUSY
        answers[self._strikes(_AGAIN, pages)] = -errno.EAGAIN
        return answers

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        if self._strikes(_RELEASE, pages[:1]).any():
            self._release_another()
        return super().migrate_page(newpages, pages, mode)

    def _release_another(self) -> None:
        """Give up the unlocked page with the lowest page frame number."""
        unlocked = self.frame_of[self.frame_of != NO_PAGE]
        unlocked = unlocked[~self.memory.pages.locked(unlocked)]
        if len(unlocked):
            pfn = unlocked.min(keepdims=True)
            number = self.page_at[pfn]
            self.released.append(int(number[0]))
            self.free(number)
