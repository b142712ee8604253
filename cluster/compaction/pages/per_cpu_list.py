"""The list of pages that were freed lately, before they are in the free lists (mm/page_alloc.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import Pfns


class PcpRules(NamedTuple):
    """The size of a per-cpu list (struct per_cpu_pages), in pages."""

    high: int
    batch: int
    #: The most pages of a list that grows because it is full too often; None: its size is fixed.
    most: int | None = None


class PerCpuList:
    """Pages freed lately that are not in the free lists yet, oldest first (struct per_cpu_pages).

    Each time it is full without an allocation in between, it gives up twice as many pages, all but `batch`.
    """

    def __init__(self, rules: PcpRules) -> None:
        self._rules = rules
        self._waiting: list[Pfns] = []
        self._high = rules.high
        self._doublings = 0
        self._freed = 0  #: pages freed since the last allocation, up to 32 batches
        self.count = 0

    def put(self, pfns: Pfns) -> list[Pfns]:
        """Add pages in their order. Return the groups of pages that leave the list because it is full."""
        leaving = []
        while (room := self.room) <= len(pfns):
            self._append(pfns[:room])
            pfns = pfns[room:]
            leaving.append(self.take(self._give_up()))
        if len(pfns):
            self._append(pfns)
        return leaving

    @property
    def room(self) -> int:
        """How many pages fill it; with the last of them, some leave it."""
        return max(self._high - self.count, 1)

    def _append(self, pfns: Pfns) -> None:
        self._waiting.append(pfns)
        self.count += len(pfns)
        self._freed = min(self._freed + len(pfns), self._rules.batch << 5)

    def _give_up(self) -> int:
        """Return how many pages a full list gives up (nr_pcp_free)."""
        high, batch, most = self._rules.high, self._rules.batch, self._rules.most
        if most is None:
            wanted = batch << self._doublings
            self._doublings += wanted < high - batch
        else:
            high = self._high
            self._high = max(high, min(max(self._freed + batch, self._rules.high), most))
            wanted = self._freed
        return max(batch, min(wanted, high - batch))

    def take(self, count: int) -> Pfns:
        """Remove the oldest `count` pages and return them."""
        waiting = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = [waiting[count:]] if count < len(waiting) else []
        self.count -= min(count, len(waiting))
        return waiting[:count]

    def take_all(self) -> Pfns:
        return self.take(self.count) if self.count else np.zeros(0, np.int64)
