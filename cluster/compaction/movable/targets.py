"""Where the new pages of a migration come from."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.pages.buddy import pages_of
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import MAX_ORDER, MigrateType


class Targets(Protocol):
    """A source of new pages: used (reference 1), unlocked, without an owner."""

    def take(self, count: int, owed: int = 0, *, together: bool = False, all_first: bool = False) -> Pfns:
        """Take at most `count` new pages, at least one if there is any at all. int64[0..count].

        owed: pages that will be free once the targets taken before are in use. together: nothing else happens
        before `count` pages are taken; all_first: nor is any of these in use before, else a page is freed for
        each of them.
        """

    def give_back(self, pfns: Pfns, *, none_left: bool = False) -> None:
        """Return unused pages, the first of which is the next one to take. int64[n].

        none_left: it was just seen that there are no others, so after them `take` does not look again.
        """

    def take_block(self, order: int) -> int | None:
        """Take a block of 2^order new pages; None if there is none at hand."""


class AllocatedTargets:
    """alloc_migration_target(): single MOVABLE pages; none from pageblocks that are being emptied."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take(self, count: int, owed: int = 0, *, together: bool = False, all_first: bool = False) -> Pfns:
        return self._memory.alloc_bulk(count, MigrateType.MOVABLE)

    def give_back(self, pfns: Pfns, *, none_left: bool = False) -> None:
        self._memory.free(pfns)

    def take_block(self, order: int) -> int | None:
        return self._memory.alloc(order, MigrateType.MOVABLE)


class BlockLists:
    """Free blocks that a compaction has fetched as targets, by order (`cc->freepages`)."""

    def __init__(self) -> None:
        self._lists: list[deque[int]] = [deque() for _ in range(MAX_ORDER + 1)]

    def __bool__(self) -> bool:
        return any(self._lists)

    def add(self, heads: Pfns, orders: I64) -> None:
        """Add blocks at the ends of their lists. int64[n], int64[n]."""
        for head, order in zip(heads.tolist(), orders.tolist(), strict=True):
            self._lists[order].append(head)

    def take(self, order: int) -> int | None:
        """Take the first block of the smallest order from this one on, cut to it; None if there is none."""
        found = next((k for k in range(order, MAX_ORDER + 1) if self._lists[k]), None)
        if found is None:
            return None
        head = self._lists[found].popleft()
        for k in range(found - 1, order - 1, -1):
            self._lists[k].appendleft(head + (1 << k))
        return head

    def give_back(self, pfns: Pfns) -> None:
        """Put single pages at the head of their list, so that the first of them is the next one. int64[n]."""
        self._lists[0].extendleft(pfns[::-1].tolist())

    def pages(self) -> Pfns:
        """Return all pages of all blocks. int64[n]."""
        parts = [
            pages_of(np.array(heads, np.int64), np.full(len(heads), 1 << k))
            for k, heads in enumerate(self._lists)
        ]
        return np.concatenate(parts)


def take_targets(targets: Targets, count: int, *, all_first: bool = False) -> Pfns:
    """Take `count` targets, or as many as there are.

    all_first: all are taken before the first is in use; else each page is freed before the next target.
    """
    parts: list[Pfns] = []
    got = 0
    while got < count:
        owed = 0 if all_first else got
        taken = targets.take(count - got, owed, together=True, all_first=all_first)
        if len(taken) == 0:
            break
        parts.append(taken)
        got += len(taken)
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int64), *parts])
