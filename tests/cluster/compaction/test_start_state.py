"""Start states: the free blocks are as given, at any place; all other memory is used."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import Bool
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES, USED, MigrateType, PageKind
from cluster.compaction.pages.validate import validate
from cluster.compaction.scenario.fill import FilledMemory, fill_memory
from cluster.compaction.scenario.memory_host import compact_inline
from cluster.compaction.scenario.node_memory import NodeMemory
from cluster.compaction.scenario.start_state import misfit
from cluster.spec.compaction import CompactionSpec, DriverSpec, StartSpec

SIZES = 1 << np.arange(11)
ZRAM = DriverSpec("swap", "zram", 0.3, settings=(("object_size", 1300),))
GPU = DriverSpec("buffers", "gpu", 0.2)
LRU = CompactionSpec(1, 9 * PAGEBLOCK_PAGES, (), lru=0.8, unmovable=0.2)


@st.composite
def free_memories(draw: st.DrawFn) -> Bool:
    """Which pages of a memory are free, at random."""
    pageblocks = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    part = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 0.9995, 1.0]))
    free: Bool = rng.random(pageblocks * PAGEBLOCK_PAGES) < part
    return free


def buddies(free: list[bool]) -> list[int]:
    """Count free blocks from the largest down, each aligned to its size."""
    counts, taken = [0] * 11, [False] * len(free)
    for order in reversed(range(11)):
        size = 1 << order
        for start in range(0, len(free) - size + 1, size):
            span = slice(start, start + size)
            if all(free[span]) and not any(taken[span]):
                counts[order] += 1
                taken[span] = [True] * size
    return counts


def filled(spec: CompactionSpec) -> FilledMemory:
    memory = fill_memory(spec, 0)
    validate(memory.memory)
    return memory


@settings(max_examples=60)
@given(free_memories(), st.integers(0, 99), st.sampled_from([(), (ZRAM,), (GPU, ZRAM)]))
def test_free_blocks_of_any_memory(free: Bool, seed: int, drivers: tuple[DriverSpec, ...]) -> None:
    size, blocks = len(free), tuple(buddies(free.tolist()))
    start = StartSpec(blocks)
    assert misfit(start, size) == ""
    spec = replace(LRU, pages_per_node=size, start=(start,), seed=seed, drivers=drivers, lru=0.3)
    node = NodeMemory(spec, 0, filled(spec))
    assert node.before.tolist() == list(blocks)
    pages = node.memory.pages
    used = pages.order[:size] == USED
    assert size - np.count_nonzero(used) == SIZES @ blocks
    kinds = {chr(kind) for kind in np.unique(pages.kind[:size][used])}
    assert kinds <= {"U", "L", "Z", "G"}


@settings(max_examples=60)
@given(free_memories(), st.integers(0, 99), st.integers(0, 1))
def test_pageblocks_of_any_memory(free: Bool, seed: int, uncounted: int) -> None:
    """Every type has its pageblocks and its free blocks; used pages of the movable ones alone can move."""
    size = len(free)
    types = np.repeat(np.random.default_rng(seed).integers(3, size=5), 2)[: size // PAGEBLOCK_PAGES]
    blocks = [blocks_in(free, types == kind) for kind in range(3)]
    numbers = np.bincount(types, minlength=3)
    start = StartSpec(tuple(map(sum, zip(*blocks, strict=True))), tuple(numbers), blocks[0], blocks[2])
    size += 2 * uncounted * PAGEBLOCK_PAGES
    numbers[0] += 2 * uncounted
    assert misfit(start, size) == ""
    spec = replace(LRU, pages_per_node=size, start=(start,), seed=seed, lru=0.8, unmovable=0.0)
    node = NodeMemory(spec, 0, filled(spec))
    assert node.before.tolist() == list(start.free_blocks)
    pages = node.memory.pages
    drawn = pages.pageblock_type[: size // PAGEBLOCK_PAGES]
    assert np.array_equal(np.bincount(drawn, minlength=3), numbers)
    now_free = pages.order[:size] != USED
    assert [blocks_in(now_free, drawn == kind) for kind in range(3)] == blocks
    movable = np.repeat(drawn == MigrateType.MOVABLE, PAGEBLOCK_PAGES)
    assert np.array_equal(pages.kind[:size] == PageKind.LRU, movable & ~now_free)
    assert np.array_equal(pages.kind[:size] == PageKind.UNMOVABLE, ~movable & ~now_free)


def blocks_in(free: Bool, pageblocks: Bool) -> tuple[int, ...]:
    """Count the free blocks in some pageblocks."""
    return tuple(buddies((free & np.repeat(pageblocks, PAGEBLOCK_PAGES)).tolist()))


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), min_size=9, max_size=9), st.integers(0, 2), st.integers(2, 5))
def test_what_is_said_to_fit_can_be_placed(small: list[int], large: int, pageblocks: int) -> None:
    start = StartSpec((*small, large, large // 2))
    spec = replace(LRU, pages_per_node=pageblocks * PAGEBLOCK_PAGES, start=(start,))
    if not misfit(start, spec.pages_per_node):
        assert NodeMemory(spec, 0, filled(spec)).before.tolist() == list(start.free_blocks)


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ({10: 5}, "5 of order 10 do not fit"),
        ({10: 4, 9: 2}, "2 of order 9 do not fit beside the larger ones"),
        ({3: 9 * 32 + 1}, "289 of order 3 do not fit beside the larger ones"),
        ({0: 9 * 256 + 1}, "2,305 of order 0 do not fit beside the larger ones"),
    ],
)
def test_what_does_not_fit(blocks: dict[int, int], text: str) -> None:
    """At most one half of a larger block is free."""
    assert misfit(StartSpec(tuple(blocks.get(order, 0) for order in range(11))), 9 * 512) == text


def test_types_that_do_not_fit() -> None:
    none, one = (0,) * 11, (1, *[0] * 10)
    for start, text in (
        (StartSpec(none, (1, 8, 1), none, none), "10 pageblocks do not fit"),
        (StartSpec(one, (4, 4, 1), one, one), "more free blocks of some types than of all"),
        (StartSpec(one, (9, 0, 0), none, none), "1 of order 0 do not fit beside the larger ones"),
        (
            StartSpec((*[0] * 9, 3, 0), (1, 7, 1), (*[0] * 9, 3, 0), none),
            "3 of order 9 do not fit beside the larger ones",
        ),
    ):
        assert misfit(start, 9 * PAGEBLOCK_PAGES) == text


def test_who_has_the_other_memory() -> None:
    """Owners have their parts of it, mixed; the kernel has pageblocks of its own."""
    start = StartSpec((2000, 1500, 500, 100, 50, 20, 5, 5, 5, 2, 1))
    spec = replace(LRU, pages_per_node=64 * 512, drivers=(ZRAM,), lru=0.5, start=(start,))
    pages = filled(spec).memory.pages
    kinds = {chr(kind): np.count_nonzero(pages.kind == kind) for kind in np.unique(pages.kind)}
    used = 64 * 512 - int(SIZES @ start.free_blocks)
    assert abs(kinds["U"] - used * 0.2) < PAGEBLOCK_PAGES
    assert kinds["L"] / kinds["Z"] == pytest.approx(5 / 3, rel=0.02)
    assert sum(count for kind, count in kinds.items() if kind in "ULZ") == used
    fixed = np.flatnonzero(pages.kind == PageKind.UNMOVABLE) // PAGEBLOCK_PAGES
    types = pages.pageblock_type[:64]
    assert np.array_equal(np.unique(fixed), np.flatnonzero(types == MigrateType.UNMOVABLE))
    others = np.flatnonzero((pages.kind == PageKind.LRU) | (pages.kind == PageKind.ZSMALLOC))
    assert not np.isin(others // PAGEBLOCK_PAGES, fixed).any()


@pytest.mark.parametrize("trigger", ["compact_memory", "direct", "proactive"])
def test_compaction_of_a_start_state(trigger: str) -> None:
    """Nodes differ and seeds do, but not their free blocks; large blocks come out of small ones."""
    start = StartSpec((700, 400, 200, 100, 50, 20, 5, 0, 0, 0, 0))
    spec = replace(LRU, nodes=2, pages_per_node=32 * 512, start=(start, start), trigger=trigger)
    reports = compact_inline(spec)
    for report in reports:
        assert report.before.tolist() == list(start.free_blocks)
        assert (report.obtained_before, report.obtained_after > 0) == (0, True)
        assert report.by_driver["lru"].moved > 0
    assert reports[0].after.tolist() != reports[1].after.tolist()
    assert repr(compact_inline(copy.deepcopy(spec))) == repr(reports)
