"""A node's memory before a compaction: filled by drivers, LRU pages and the kernel, then freed in part.

With a start state, the free blocks are given instead, and owners fill the other memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.arrays.words import I64, Pfns, empty
from cluster.compaction.drivers.registry import DriverError, make_checked_driver
from cluster.compaction.drivers.scenario_driver import ScenarioDriver
from cluster.compaction.internode.foreign_pages import ForeignPages, Proxies
from cluster.compaction.internode.transfer import NodeOwners
from cluster.compaction.movable.counting import GUESTS
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    MAX_ORDER,
    PG_LRU,
    MigrateType,
    PageKind,
    PageMap,
)
from cluster.compaction.scenario.mix_owners import default_grain, frames_of_owners
from cluster.compaction.scenario.random_streams import Purpose, random_stream
from cluster.compaction.scenario.start_state import draw_start
from cluster.mm.frames import PAGE_MAPPING_ANON
from cluster.spec.compaction import CompactionSpec, DriverSpec


@dataclass(slots=True)
class _Filler:
    """An owner that fills memory. It allocates units on `wanted` pages and gives up a part of them."""

    allocate: Callable[[int], I64]
    discard: Callable[[I64], None]
    migratetype: MigrateType
    wanted: int
    give_up: float
    units: I64 = field(default_factory=empty)

    def fill(self, zone: Zone) -> None:
        """Allocate units until no memory is free, or the owner takes no more."""
        before, per_page = zone.free_pages, 1.0
        units: list[I64] = []
        while zone.free_pages:
            got = self.allocate(max(int(zone.free_pages * per_page), 1))
            if len(got) == 0:
                break
            units.append(got)
            per_page = sum(map(len, units)) / max(before - zone.free_pages, 1)
        self.units = np.concatenate([self.units, *units])


@dataclass(slots=True)
class FilledMemory:
    """A node's memory, its drivers and LRU pages, and the numbers of owners by name, foreign pages included.

    node_owners: None unless the scenario moves pages between nodes.
    """

    memory: Memory
    drivers: list[ScenarioDriver]
    lru: LruPages
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
        return FilledMemory(memory, [], lru, lru.owners)


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
    memory = lru.memory
    made = [_make_driver(d, memory) for d in spec.drivers]
    drivers = [driver for driver, _owner in made]
    owners = [_of_driver(d, driver, size) for d, driver in zip(spec.drivers, drivers, strict=True)]
    owners.append(_of_lru(spec, memory, lru))
    if spec.start:
        _fill_around_free_blocks(owners, memory, spec, node)
    else:
        _fill_and_give_up(owners, memory, spec, node)
    numbers = {d.name: owner for d, (_driver, owner) in zip(spec.drivers, made, strict=True)} | lru.owners
    if not spec.relocations:
        return FilledMemory(memory, drivers, lru, numbers)
    node_owners = NodeOwners(memory, lru, ForeignPages(memory), Proxies(memory, node, size))
    return FilledMemory(memory, drivers, lru, numbers | {GUESTS: node_owners.foreign.owner}, node_owners)


def _make_driver(spec: DriverSpec, memory: Memory) -> tuple[ScenarioDriver, int]:
    """Make a driver; return it with the owner number under which it has registered."""
    owner = len(memory.operations)
    driver = make_checked_driver(spec.kind, memory, dict(spec.settings))
    if len(memory.operations) != owner + 1:
        raise DriverError(f"driver {spec.kind!r} must call Memory.register once when it is made")
    return driver, owner


def _of_driver(spec: DriverSpec, driver: ScenarioDriver, pages: int) -> _Filler:
    migratetype = getattr(driver, "migratetype", MigrateType.MOVABLE)
    return _Filler(driver.allocate, driver.discard, migratetype, int(spec.share * pages), spec.discard)


def _of_lru(spec: CompactionSpec, memory: Memory, lru: LruPages) -> _Filler:
    """Return the filler of LRU pages, whose units are frames."""

    def allocate(count: int) -> I64:
        pfns = memory.alloc_bulk(count)
        memory.pages.set_kind(pfns, PageKind.LRU)
        lru.adopt(pfns, PAGE_MAPPING_ANON)
        return pfns

    wanted = int(spec.lru * spec.pages_per_node)
    return _Filler(allocate, memory.put, MigrateType.MOVABLE, wanted, spec.lru_discard)


def _fill_and_give_up(owners: list[_Filler], memory: Memory, spec: CompactionSpec, node: int) -> None:
    """Let the kernel and the owners fill memory; then owners give up units drawn at random."""
    fixed = memory.alloc_bulk(round(spec.unmovable * spec.pages_per_node), MigrateType.UNMOVABLE)
    memory.pages.set_kind(fixed, PageKind.UNMOVABLE)
    zone, filling = memory.zones[0], [owner for owner in owners if owner.wanted]
    for migratetype in sorted({owner.migratetype for owner in filling}):
        alike = [owner for owner in filling if owner.migratetype == migratetype]
        wanted = [owner.wanted for owner in alike]
        frames = np.sort(memory.alloc_bulk(sum(wanted), migratetype))
        zone.free(_fill_mixed(alike, frames, wanted, zone, spec))
    rng = random_stream(spec.seed, Purpose.DISCARDS, node)
    for owner in owners:
        count = round(owner.give_up * len(owner.units))
        owner.discard(np.sort(rng.choice(owner.units, count, replace=False)))


def _fill_around_free_blocks(owners: list[_Filler], memory: Memory, spec: CompactionSpec, node: int) -> None:
    """Draw the start state of a node, and let owners fill what is movable of its memory.

    LRU pages, the last of the owners, get what drivers have no use for.
    """
    pages, zone = memory.pages, memory.zones[0]
    parts = np.array([*(driver.share for driver in spec.drivers), spec.lru])
    kernel = spec.unmovable / (spec.unmovable + parts.sum())
    rng = random_stream(spec.seed, Purpose.START, node)
    state = draw_start(spec.start[node], spec.pages_per_node, kernel, rng)
    memory.alloc_bulk(spec.pages_per_node)
    pages.set_kind(state.kernel, PageKind.UNMOVABLE)
    ends = np.rint(np.cumsum(parts) / parts.sum() * len(state.movable)).astype(np.int64)
    wanted = np.diff(ends, prepend=0).tolist()
    zone.free(_fill_mixed(owners, state.movable, wanted, zone, spec))
    owners[-1].fill(zone)
    # Owners that allocate from memory of another type have changed the types.
    pages.set_pageblock_type(slice(0, len(state.pageblock_types)), state.pageblock_types)
    zone.free(state.free)


def _fill_mixed(
    owners: list[_Filler], frames: Pfns, wanted: list[int], zone: Zone, spec: CompactionSpec
) -> Pfns:
    """Let owners fill these used frames, mixed at the scenario's grain; return all that is free then, taken.

    Each owner fills all its frames at once, while no other memory is free. So the time does not depend on
    the grain.
    """
    grain = max([spec.grain or default_grain(wanted), *map(_largest_block, spec.drivers)])
    kept_back = [zone.take(zone.start, zone.end)]
    for owner, own in zip(owners, frames_of_owners(frames, wanted, grain), strict=True):
        zone.free(own)
        owner.fill(zone)
        kept_back.append(zone.take(zone.start, zone.end))
    return np.concatenate(kept_back)


def _largest_block(spec: DriverSpec) -> int:
    """Return the size of the blocks that a driver allocates: the least at which it gets its first unit."""
    for order in range(MAX_ORDER):
        pages = PageMap(MAX_BLOCK_PAGES)
        pages.set_free((np.arange(MAX_BLOCK_PAGES) >> order & 1) == 0)
        memory = Memory(pages, [Zone(pages, 0, MAX_BLOCK_PAGES)])
        if len(make_checked_driver(spec.kind, memory, dict(spec.settings)).allocate(1)):
            return 1 << order
    return MAX_BLOCK_PAGES
