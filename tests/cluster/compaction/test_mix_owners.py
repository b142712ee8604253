"""Owners' pages lie mixed at the scenario's grain, whatever the size of a node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.pages.page_map import OWNER_SHIFT, PAGEBLOCK_PAGES, MigrateType
from cluster.compaction.pages.validate import validate
from cluster.compaction.scenario.fill import fill_memory
from cluster.compaction.scenario.memory_host import compact_inline
from cluster.compaction.scenario.mix_owners import default_grain, frames_of_owners
from cluster.compaction.scenario.node_report import blocks_of
from cluster.spec.compaction import CompactionSpec, DriverSpec

MIB = 256
DRIVERS = (
    DriverSpec("swap", "zram", 0.6, 0.7, (("object_size", 1360),)),
    DriverSpec("buffers", "gpu", 0.25, 0.4, (("busy", 0.3),)),
    DriverSpec("balloon", "balloon", 0.05, 0.3),
)


class Rings(PageDriver):
    """A driver that allocates blocks of 32 pages."""

    def allocate(self, count: int) -> I64:
        blocks: list[I64] = []
        while len(blocks) * 32 < count and (pfn := self.memory.alloc(5)) is not None:
            blocks.append(self.adopt(np.arange(pfn, pfn + 32)))
        return np.concatenate([np.zeros(0, np.int64), *blocks])


class Tables(PageDriver):
    """A driver whose pages come from memory for unmovable pages."""

    migratetype = MigrateType.UNMOVABLE


def full(size: int, grain: int | None, *drivers: DriverSpec) -> CompactionSpec:
    """A node of which no owner gives up anything."""
    those = tuple(replace(driver, discard=0.0) for driver in drivers or DRIVERS)
    return CompactionSpec(1, size, those, lru=0.05, lru_discard=0.0, grain=grain)


def owners(spec: CompactionSpec) -> I64:
    """Return the owner of each page, 0 for free ones."""
    filled = fill_memory(spec, 0)
    validate(filled.memory)
    return (filled.memory.pages.mapping[: spec.pages_per_node] >> OWNER_SHIFT).astype(np.int64)


def one_owner(spec: CompactionSpec) -> float:
    """Return the share of the pageblocks in use that have pages of one owner only."""
    blocks = owners(spec).reshape(-1, PAGEBLOCK_PAGES)
    counts = [len(np.unique(block[block > 0])) for block in blocks if block.any()]
    return float(np.mean(np.array(counts) == 1))


@pytest.mark.parametrize("size", [64 * MIB, 256 * MIB, 1024 * MIB])
def test_every_pageblock_has_several_owners(size: int) -> None:
    for grain in (None, 1, 8, 64, 128):
        assert one_owner(full(size, grain)) == 0
    # A turn is several pageblocks; two owners meet in few.
    assert one_owner(full(size, 16 * PAGEBLOCK_PAGES)) > 0.7


@pytest.mark.parametrize("size", [64 * MIB, 256 * MIB, 1024 * MIB])
def test_a_small_share_is_in_every_pageblock_too(size: int) -> None:
    most, some = (replace(DRIVERS[0], share=share, name=f"swap{share}") for share in (0.97, 0.01))
    spec = replace(full(size, None, most, some), lru=0.01)
    assert one_owner(spec) == 0


def test_a_grain_as_large_as_the_node_mixes_nothing() -> None:
    """Each owner has its pages side by side, in the order of the scenario."""
    got = owners(full(256 * MIB, 256 * MIB))
    got = got[got > 0]
    changes = np.flatnonzero(np.diff(got)) + 1
    sizes = [int(part * 256 * MIB) for part in (0.6, 0.25, 0.05, 0.05)]
    assert changes.tolist() == np.cumsum(sizes[:-1]).tolist()


@pytest.mark.parametrize("grain", [None, 1, 64])
def test_every_owner_gets_what_it_wants(grain: int | None) -> None:
    spec = full(64 * MIB, grain)
    counts = np.bincount(owners(spec), minlength=5)
    wanted = [int(part * spec.pages_per_node) for part in (0.6, 0.25, 0.05, 0.05)]
    # LRU pages register first.
    assert counts[1:].tolist() == [wanted[3], *wanted[:3]]


@pytest.mark.parametrize("mode", ["async", "sync-light", "sync"])
def test_the_answer_does_not_depend_on_the_size_of_a_node(mode: str) -> None:
    """Huge blocks as parts of the node; on the smallest node, one block is 1/32."""
    parts = []
    for size in (64 * MIB, 256 * MIB, 1024 * MIB):
        report = compact_inline(CompactionSpec(1, size, DRIVERS, lru=0.08, unmovable=0.02, mode=mode))[0]
        assert blocks_of(report.before, 9) == blocks_of(report.without, 9) == 0
        parts.append(blocks_of(report.after, 9) * PAGEBLOCK_PAGES / size)
    assert min(parts) > 0.2
    assert max(parts) - min(parts) < 2.5 / 32


def test_a_driver_of_large_blocks_sets_the_least_grain() -> None:
    rings = DriverSpec("nic", f"{__name__}:Rings", 0.25)
    got = owners(full(64 * MIB, 4, rings, DRIVERS[0]))
    mine = (got == 2).reshape(-1, 32)
    assert np.count_nonzero(mine) == 0.25 * 64 * MIB
    assert (mine.all(axis=1) == mine.any(axis=1)).all()


def test_pageblocks_for_unmovable_pages_are_mixed_among_themselves() -> None:
    """The kernel groups pages by mobility: such a driver gets pageblocks of its own."""
    spec = full(64 * MIB, None, DriverSpec("tables", f"{__name__}:Tables", 0.25), *DRIVERS[1:])
    blocks = owners(spec).reshape(-1, PAGEBLOCK_PAGES)
    mine = (blocks == 2).any(axis=1)
    assert np.count_nonzero(mine) == 0.25 * 32
    assert (blocks[mine] == 2).all()


def test_default_grain() -> None:
    assert default_grain([100]) == default_grain([1000, 900]) == 16
    assert default_grain([968, 32]) == 8
    assert default_grain([100_000, 1]) == 1


def test_frames_of_owners() -> None:
    """Turns are spread evenly, rests come last, as do frames outside whole blocks."""
    first, second, third = frames_of_owners(np.arange(2, 26), [13, 4, 3], 4)
    assert first.tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20]
    assert second.tolist() == [12, 13, 14, 15]
    assert third.tolist() == [21, 22, 23]
