"""A node's memory before a compaction: filled by drivers, LRU pages and the kernel, then freed in part."""

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

#: Parts in which owners fill a node, in turns, so that their pages lie mixed in every pageblock.
_PARTS = 64


@dataclass(slots=True)
class _Filler:
    """An owner that fills memory. `allocate` units and `discard` some; `wanted` and `used` in pages."""

    allocate: Callable[[int], I64]
    discard: Callable[[I64], None]
    wanted: int
    give_up: float
    units: list[I64]
    used: int = 0

    def fill(self, most: int, zone: Zone) -> bool:
        """Allocate units for about `most` pages; return whether more are wanted and there is memory."""
        before = zone.free_pages
        pages = min(most, self.wanted - self.used)
        per_page = sum(map(len, self.units)) / self.used if self.used else 1
        got = self.allocate(max(int(pages * per_page), 1))
        self.units.append(got)
        self.used += before - zone.free_pages
        return len(got) > 0 and self.used < self.wanted


@dataclass(slots=True)
class FilledMemory:
    """A node's memory, its drivers, and the numbers of owners by name: drivers, LRU pages, foreign pages.

    node_owners: None unless the scenario moves pages between nodes.
    """

    memory: Memory
    drivers: list[ScenarioDriver]
    owners: dict[str, int]
    node_owners: NodeOwners | None = None

    def without_drivers(self) -> FilledMemory:
        """Return a copy without drivers: their pages look like pages of the kernel."""
        pages = copy.deepcopy(self.memory.pages)
        pages.set_mapping(np.flatnonzero(pages.flags & PG_LRU == 0), owner=0, tag=0)
        zones = [replace(zone, pages=pages) for zone in self.memory.zones]
        memory = Memory(pages, zones)
        lru = LruPages(memory)
        lru.adopt(np.flatnonzero(pages.flags & PG_LRU), PAGE_MAPPING_ANON)
        return FilledMemory(memory, [], lru.owners)


def empty_memory(count: int, proxies: int = 0) -> Memory:
    """Return a zone of `count` free pages, and a page map with `proxies` page frame numbers above it."""
    pages = PageMap(count + proxies)
    pages.set_free(np.arange(count + proxies) < count)
    return Memory(pages, [Zone(pages, 0, count)])


def fill_memory(spec: CompactionSpec, node: int, lru: LruPages | None = None) -> FilledMemory:
    """Fill the memory of a node as the scenario says; the same for the same seed and node.

    Fills the memory of `lru` if given, which is empty so far; otherwise makes a new one.
    """
    size = spec.pages_per_node
    lru = lru or LruPages(empty_memory(size, proxies=size if spec.relocations else 0))
    memory, pages = lru.memory, lru.memory.pages
    made = [_make_driver(d, memory) for d in spec.drivers]
    drivers = [driver for driver, _owner in made]
    fixed = memory.alloc_bulk(round(spec.unmovable * size), MigrateType.UNMOVABLE)
    pages.set_kind(fixed, PageKind.UNMOVABLE)
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
        return FilledMemory(memory, drivers, numbers)
    node_owners = NodeOwners(memory, lru, ForeignPages(memory), Proxies(memory, node, size))
    return FilledMemory(memory, drivers, numbers | {GUESTS: node_owners.foreign.owner}, node_owners)


def _make_driver(spec: DriverSpec, memory: Memory) -> tuple[ScenarioDriver, int]:
    """Make a driver; return it with the owner number under which it has registered."""
    owner = len(memory.operations)
    driver = make_driver(spec.kind, memory, dict(spec.settings))
    if len(memory.operations) != owner + 1:
        raise DriverError(f"driver {spec.kind!r} must call Memory.register once when it is made")
    return driver, owner


def _of_driver(spec: DriverSpec, driver: ScenarioDriver, pages: int) -> _Filler:
    return _Filler(driver.allocate, driver.discard, int(spec.share * pages), spec.discard, [])


def _of_lru(spec: CompactionSpec, memory: Memory, lru: LruPages) -> _Filler:
    """Return the filler of LRU pages, whose units are frames."""

    def allocate(count: int) -> I64:
        pfns = memory.alloc_bulk(count)
        memory.pages.set_kind(pfns, PageKind.LRU)
        lru.adopt(pfns, PAGE_MAPPING_ANON)
        return pfns

    wanted = int(spec.lru * spec.pages_per_node)
    return _Filler(allocate, memory.put, wanted, spec.lru_discard, [])


def _fill(memory: Memory, owners: list[_Filler]) -> None:
    """Let the owner that is farthest from what it wants fill a part, until all have what they want."""
    zone = memory.zones[0]
    chunk = max((zone.end - zone.start) // _PARTS, 1)
    left = [owner for owner in owners if owner.wanted]
    while left:
        owner = min(left, key=lambda o: o.used / o.wanted)
        if not owner.fill(chunk, zone):
            left.remove(owner)
