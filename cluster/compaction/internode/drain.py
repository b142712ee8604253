"""Draining a node: nothing is allocated on it, and pageblocks that are free at the end go offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import U8
from cluster.compaction.movable.counting import GUESTS, Counted, PagesInUse, pages_in_use
from cluster.compaction.movable.lru_pages import LRU
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import (
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    USED,
    MigrateType,
    PageKind,
)
from cluster.compaction.zone.offline_pages import take_offline

#: Why pages stay on a node that is drained.
CANNOT_MOVE, NO_ROOM, FAILED = "cannot move", "no room elsewhere", "refused or failed"
LIMIT = "most_pages have moved"
UNFOUND, DRIVERS_STAY = "a mapping is not found", "drivers' pages keep their node"


@dataclass(frozen=True, slots=True)
class Stayed:
    """Pages of one owner that stayed on a drained node, and why."""

    owner: str
    pages: int
    why: str


@dataclass(frozen=True, slots=True)
class Drained:
    """Result of draining a node: how many of its pageblocks are offline, and which pages stayed.

    fixed: pages that would have stayed if no driver's page could move: those of drivers and of the kernel.
    pageblocks: those of the node; 0 in `simulate`, where the memory stays online and `fixed` is not known.
    """

    relocation: int
    offline: int
    pageblocks: int
    fixed: int
    stayed: tuple[Stayed, ...]


class NodeDrain:
    """Drains one node; `results` has an entry for each drain that is finished."""

    def __init__(self, memory: Memory, counted: Mapping[str, Counted]) -> None:
        self.results: list[Drained] = []
        self._memory = memory
        self._counted = counted
        #: Types of the pageblocks before the drain; None if none is under way.
        self._types: U8 | None = None
        self._fixed = 0

    @property
    def active(self) -> bool:
        return self._types is not None

    @property
    def _blocks(self) -> slice:
        zone = self._memory.zones[0]
        return slice(zone.start >> PAGEBLOCK_ORDER, zone.end >> PAGEBLOCK_ORDER)

    def begin(self) -> None:
        """Set all pageblocks to ISOLATE, so that nothing is allocated from them."""
        pages = self._memory.pages
        self._memory.forget_lists()
        self._types = pages.pageblock_type[self._blocks].copy()
        pages.set_pageblock_type(self._blocks, MigrateType.ISOLATE)
        self._fixed = sum(held.pages for held in self._in_use() if held.owner not in (LRU, GUESTS))

    def finish(self, relocation: int, why: str) -> None:
        """Take free pageblocks offline, and give the others their types back. `why`: why pages stay."""
        pages, zone = self._memory.pages, self._memory.zones[0]
        self._memory.forget_lists()
        zone.merge()
        free = (pages.order[zone.start : zone.end] != USED).reshape(-1, PAGEBLOCK_PAGES).all(axis=1)
        gone = (pages.kind[zone.start : zone.end] == PageKind.HOLE).reshape(-1, PAGEBLOCK_PAGES).all(axis=1)
        for block in np.flatnonzero(free).tolist():
            start = zone.start + block * PAGEBLOCK_PAGES
            take_offline(self._memory, start, start + PAGEBLOCK_PAGES)
        if self._types is not None:
            pages.set_pageblock_type(self._blocks, np.where(free, MigrateType.ISOLATE, self._types))
        self._types = None
        stayed = tuple(
            Stayed(held.owner, held.pages, why if held.movable else CANNOT_MOVE)
            for held in self._in_use()
            if held.pages
        )
        offline = int(np.count_nonzero(free | gone))
        self.results.append(Drained(relocation, offline, len(free), self._fixed, stayed))

    def _in_use(self) -> Iterator[PagesInUse]:
        return pages_in_use(self._memory, {name: counted.owner for name, counted in self._counted.items()})
