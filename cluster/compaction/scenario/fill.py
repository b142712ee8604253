"""A node's memory in use: filled by drivers, LRU pages and the kernel, then partly given up, at random."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.registry import DriverError, ScenarioDriver, make_driver
from cluster.compaction.internode.foreign_pages import ForeignPages, Proxies
from cluster.compaction.internode.transfer import NodeOwners
from cluster.compaction.movable.counting import GUESTS
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PG_LRU, MigrateType, PageKind, PageMap
from cluster.mm.frames import PAGE_MAPPING_ANON
from cluster.spec.compaction import CompactionSpec, DriverSpec

#: Allocations that fill a node: owners take turns, so that their pages lie mixed in every pageblock.
_TURNS = 64


@dataclass(slots=True)
class _Owner:
    """Someone who fills memory. `allocate` units and `discard` some; `wanted` and `used` in pages."""

    allocate: Callable[[int], I64]
    discard: Callable[[I64], None]
    wanted: int
    give_up: float
    units: list[I64]
    used: int = 0

    def fill(self, most: int, zone: Zone) -> bool:
        """Allocate units for about `most` pages; whether more are wanted, and can be had."""
        before = zone.free_pages
        pages = min(most, self.wanted - self.used)
        per_page = sum(map(len, self.units)) / self.used if self.used else 1
        got = self.allocate(max(int(pages * per_page), 1))
        self.units.append(got)
        self.used += before - zone.free_pages
        return len(got) > 0 and self.used < self.wanted


@dataclass(slots=True)
class Filled:
    """A node's memory, its drivers, and the numbers of owners by name, LRU pages last.

    lodging: with guests and proxies, if the scenario moves pages between nodes.
    """

    memory: Memory
    drivers: list[ScenarioDriver]
    owners: dict[str, int]
    lodging: NodeOwners | None = None

    def without_drivers(self) -> Filled:
        """A copy in which no driver implements the calls: its pages look like any page of the kernel's."""
        pages = copy.deepcopy(self.memory.pages)
        pages.mapping[pages.flags & PG_LRU == 0] = 0
        zones = [replace(zone, pages=pages) for zone in self.memory.zones]
        memory = Memory(pages, zones)
        lru = LruPages(memory)
        lru.adopt(np.flatnonzero(pages.flags & PG_LRU), PAGE_MAPPING_ANON)
        return Filled(memory, [], lru.owners)


def empty_memory(count: int, proxies: int = 0) -> Memory:
    """One zone of so many pages, all of them free, and page frame numbers for so many proxies."""
    pages = PageMap(count + proxies)
    pages.set_free(np.arange(count + proxies) < count)
    return Memory(pages, [Zone(pages, 0, count)])


def filled(spec: CompactionSpec, node: int, lru: LruPages | None = None) -> Filled:
    """The memory of a node before its compaction; the same for the same seed and node.

    It is that of `lru` if given, empty so far.
    """
    size = spec.pages_per_node
    lru = lru or LruPages(empty_memory(size, proxies=size if spec.relocations else 0))
    memory, pages = lru.memory, lru.memory.pages
    made = [_made(d, memory) for d in spec.drivers]
    drivers = [driver for driver, _owner in made]
    fixed = memory.alloc_bulk(round(spec.unmovable * size), MigrateType.UNMOVABLE)
    pages.kind[fixed] = PageKind.UNMOVABLE
    owners = [_of_driver(d, driver, size) for d, driver in zip(spec.drivers, drivers, strict=True)]
    owners.append(_of_lru(spec, memory, lru))
    _fill(memory, owners)
    rng = np.random.default_rng((spec.seed, node))
    for owner in owners:
        units = np.concatenate([np.zeros(0, np.int64), *owner.units])
        count = round(owner.give_up * len(units))
        owner.discard(np.sort(rng.choice(units, count, replace=False)))
    numbers = {d.name: owner for d, (_driver, owner) in zip(spec.drivers, made, strict=True)} | lru.owners
    if not spec.relocations:
        return Filled(memory, drivers, numbers)
    lodging = NodeOwners(memory, lru, ForeignPages(memory), Proxies(memory, node, size))
    return Filled(memory, drivers, numbers | {GUESTS: lodging.guests.owner}, lodging)


def _made(spec: DriverSpec, memory: Memory) -> tuple[ScenarioDriver, int]:
    """A driver, and the number under which it has registered."""
    owner = len(memory.operations)
    driver = make_driver(spec.kind, memory, dict(spec.settings))
    if len(memory.operations) != owner + 1:
        raise DriverError(f"driver {spec.kind!r} must call Memory.register once when it is made")
    return driver, owner


def _of_driver(spec: DriverSpec, driver: ScenarioDriver, pages: int) -> _Owner:
    return _Owner(driver.allocate, driver.discard, int(spec.share * pages), spec.discard, [])


def _of_lru(spec: CompactionSpec, memory: Memory, lru: LruPages) -> _Owner:
    """LRU pages; as units, their frames."""

    def allocate(count: int) -> I64:
        pfns = memory.alloc_bulk(count)
        memory.pages.kind[pfns] = PageKind.LRU
        lru.adopt(pfns, PAGE_MAPPING_ANON)
        return pfns

    wanted = int(spec.lru * spec.pages_per_node)
    return _Owner(allocate, memory.put, wanted, spec.lru_discard, [])


def _fill(memory: Memory, owners: list[_Owner]) -> None:
    """Always the owner that is farthest from what it wants, in parts of its own; until all have it."""
    zone = memory.zones[0]
    chunk = max((zone.end - zone.start) // _TURNS, 1)
    left = [owner for owner in owners if owner.wanted]
    while left:
        owner = min(left, key=lambda o: o.used / o.wanted)
        if not owner.fill(chunk, zone):
            left.remove(owner)
