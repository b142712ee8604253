"""Where the new pages of a migration come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import MigrateType


class Targets(Protocol):
    """A source of new pages: used (reference 1), unlocked, without an owner."""

    def take(self, count: int, owed: int = 0) -> Pfns:
        """Take at most `count` new pages, at least one if there is any at all. int64[0..count].

        owed: pages that will be free once the targets taken before are in use.
        """

    def give_back(self, pfns: Pfns) -> None:
        """Return unused pages of the last `take`, in the order in which they came."""


class AllocatedTargets:
    """alloc_migration_target(): single MOVABLE pages; none from pageblocks that are being emptied."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take(self, count: int, owed: int = 0) -> Pfns:
        return self._memory.alloc_bulk(count, MigrateType.MOVABLE)

    def give_back(self, pfns: Pfns) -> None:
        self._memory.free(pfns)


def take_targets(targets: Targets, count: int, *, all_first: bool = False) -> Pfns:
    """Take `count` targets, or as many as there are.

    all_first: all are taken before the first is in use; else each page is freed before the next target.
    """
    taken = targets.take(count)
    if len(taken) == count:
        return taken
    parts, got = [taken], len(taken)
    while got < count:
        more = targets.take(count - got, 0 if all_first else got)
        if len(more) == 0:
            break
        parts.append(more)
        got += len(more)
    return np.concatenate(parts)
