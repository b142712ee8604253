"""Free memory of a zone."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import Pfns
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import PageStateError
from cluster.compaction.pages.page_map import MAX_ORDER, MigrateType, PageKind, PageMap
from cluster.compaction.pages.validate import validate
from cluster.compaction.replay.migration_record import memory_of

from .test_migration_records import RECORDS

PAGES = 4096


def zone_of(free: np.ndarray[tuple[int], np.dtype[np.bool_]], **settings: int) -> Zone:
    pages = PageMap(len(free))
    pages.set_free(free)
    return Zone(pages, 0, len(free), **settings)  # type: ignore[arg-type]


def blocks_by_hand(free: list[bool]) -> list[int]:
    """Free blocks by order, merging one pair after another."""
    counts = [0] * (MAX_ORDER + 1)
    level = free
    for order in range(MAX_ORDER + 1):
        pairs = [left and right for left, right in zip(level[::2], level[1::2], strict=True)]
        merged = pairs if order < MAX_ORDER else [False] * len(pairs)
        counts[order] = sum(level) - 2 * sum(merged)
        level = merged
    return counts


@settings(max_examples=30)
@given(seed=st.integers(0, 999), share=st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_blocks_are_merged_as_far_as_possible(seed: int, share: float) -> None:
    free = np.random.default_rng(seed).random(PAGES) < share
    zone = zone_of(free)
    assert zone.buddyinfo().tolist() == blocks_by_hand(free.tolist())
    for order in (0, 3, 9):
        usable = sum(n << k for k, n in enumerate(blocks_by_hand(free.tolist())) if k >= order)
        assert zone.unusable_index(order) == pytest.approx(1 - usable / free.sum())


@settings(max_examples=30)
@given(seed=st.integers(0, 999), orders=st.lists(st.integers(0, MAX_ORDER), max_size=60))
def test_what_is_allocated_and_freed(seed: int, orders: list[int]) -> None:
    free = np.random.default_rng(seed).random(PAGES) < 0.98
    zone = zone_of(free)
    memory = Memory(zone.pages, [zone])
    taken: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for order in orders:
        could = zone.free_blocks(order) > 0
        pfn = memory.alloc(order)
        assert (pfn is not None) == could
        if pfn is not None:
            assert pfn % (1 << order) == 0
            taken.append(np.arange(pfn, pfn + (1 << order)))
    taken.append(memory.alloc_bulk(100))
    everything = np.concatenate(taken)
    assert len(np.unique(everything)) == len(everything)
    assert free[everything].all()
    assert zone.free_pages == free.sum() - len(everything)
    for pfns in taken:
        memory.free(pfns)
    assert zone.buddyinfo().tolist() == blocks_by_hand(free.tolist())


def test_the_smallest_block_of_the_own_type_is_cut() -> None:
    free = np.zeros(2048, np.bool_)
    free[[*range(8, 16), *range(600, 604), 1030]] = True
    zone = zone_of(free)
    zone.pages.pageblock_type[1] = MigrateType.UNMOVABLE
    assert zone.alloc(1) == 8
    assert zone.alloc(0) == 1030
    assert zone.alloc(1, MigrateType.UNMOVABLE) == 600
    assert zone.alloc_bulk(3, MigrateType.UNMOVABLE).tolist() == [602, 603, 12]


def test_a_large_block_takes_its_pageblock_along() -> None:
    zone = zone_of(np.ones(2048, np.bool_))
    assert zone.alloc(0, MigrateType.UNMOVABLE) == 0
    assert zone.pages.pageblock_type[:4].tolist() == [0, 0, 1, 1]


def test_watermarks() -> None:
    zone = zone_of(np.ones(1024, np.bool_), watermark_min=600)
    assert zone.alloc(9) is None
    assert len(zone.alloc_bulk(1000)) == 424
    assert zone.alloc(0) is None


def test_an_emptied_zone() -> None:
    zone = zone_of(np.zeros(1024, np.bool_))
    assert zone.unusable_index(9) == 1.0
    assert zone.alloc(0) is None
    assert len(zone.alloc_bulk(5)) == 0


@pytest.mark.parametrize("name", ["blocks/p100_u1_rand50", "blocks/p100_rand75", "direct/direct_mayfail_p0"])
def test_as_recorded(name: str) -> None:
    """Taken a moment apart, the map and /proc/buddyinfo differ by a few pages."""
    record = RECORDS[name]
    memory, _driver, _lru = memory_of(record, record["states"][0])
    for zone in memory.zones:
        recorded = np.array(record["states"][0]["buddyinfo"][zone.name])
        assert np.abs(zone.buddyinfo() - recorded).sum() <= 30


def test_a_page_taken_out_for_good() -> None:
    zone = zone_of(np.ones(1024, np.bool_))
    memory = Memory(zone.pages, [zone])
    memory.poison(5)
    assert zone.free_pages == 1023
    assert zone.buddyinfo().tolist() == [1] * 10 + [0]
    assert memory.pages.map_bytes()[5] == PageKind.POISONED


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda pages, free, used: pages.lock(free), "pages free, but with flags: [1536]"),
        (lambda pages, free, used: pages.get(free), "pages free, but with a reference: [1536]"),
        (lambda pages, free, used: pages.set_mapping(free, 1, 2), "pages free, but with an owner: [1536]"),
        (lambda pages, free, used: pages.put(used, 2), "pages with less than no reference: [0]"),
        (lambda pages, free, used: pages.isolate(used), "pages isolated, but without a tag: [0]"),
        (
            lambda pages, free, used: pages.putback_lru(used),
            "pages on the LRU lists, but without an owner: [0]",
        ),
        (lambda pages, free, used: pages.remove_free(free), "free pages are not merged, though"),
        (lambda pages, free, used: pages.add_free(used), "zone Normal has 513 free pages, but counts 512"),
    ],
)
def test_validate_names_pages_in_an_illegal_state(
    breaks: Callable[[PageMap, Pfns, Pfns], object], message: str
) -> None:
    pages = PageMap(4 * 512)
    pages.set_free(np.arange(4 * 512) >= 3 * 512)
    memory = Memory(pages, [Zone(pages, 0, 4 * 512)])
    validate(memory)
    breaks(pages, np.array([3 * 512]), np.array([0]))
    with pytest.raises(PageStateError, match=re.escape(message)):
        validate(memory)
