"""Predicted retries give the same result as every attempt made, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import I64, Array, Bool
from cluster.compaction.drivers.balloon import Balloon
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.drivers.gpu import Gpu
from cluster.compaction.drivers.zsmalloc import Zram
from cluster.compaction.kernel_rules import COMPACTION_RULES, CompactionRules
from cluster.compaction.movable.counting import Counted
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode, predicted_retries
from cluster.compaction.pages.page_map import MigrateType, PageMap
from cluster.compaction.pages.validate import validate
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.direct_compact import Allocation
from cluster.compaction.zone.kcompactd import Proactive
from cluster.mm.frames import PAGE_MAPPING_ANON

PAGES = 12 * 512


def blind(memory: Memory) -> None:
    """Let no driver predict anything: every attempt is made."""
    for operations in memory.operations:
        if operations is not None:
            operations.predict_retries = lambda pages, mode: None  # type: ignore[attr-defined]


def filled(seed: int, busy: float, used: float, clumps: int) -> tuple[Memory, Gpu]:
    """Pages of a GPU, a balloon, zram and LRU pages mixed in runs; some pinned, accessed or stuck."""
    pages = PageMap(PAGES)
    pages.set_free(np.ones(PAGES, np.bool_))
    memory = Memory(pages, [Zone(pages, 0, PAGES)])
    gpu, balloon, zram = Gpu(memory, busy=busy, seed=seed), Balloon(memory), Zram(memory)
    lru = LruPages(memory)
    rng = np.random.default_rng(seed)
    everything = memory.alloc_bulk(PAGES)
    # a driver allocates its own pages: what it is to get is free for a moment
    owner = np.repeat(rng.choice(6, PAGES // clumps, p=[0.4, 0.15, 0.2, 0.2, 0.04, 0.01]), clumps)
    memory.free(everything[owner == 2])
    slots = zram.allocate(PAGES)
    zram.begin_access(slots[::37])
    gpu.adopt(everything[owner == 0])
    gpu.pin(np.arange(0, len(gpu.frame_of), 29))
    balloon.adopt(everything[owner == 1])
    lru.adopt(everything[owner == 3], PAGE_MAPPING_ANON)
    memory.free(everything[owner == 4])
    gpu.free(gpu.page_at[np.flatnonzero((gpu.page_at >= 0) & (rng.random(PAGES) > used))])
    balloon.deflate(len(balloon.frame_of) // 2)
    return memory, gpu


def outcome(memory: Memory, gpu: Gpu, compaction: Compaction) -> list[object]:
    *found, counters = state(memory, gpu, compaction.moves)
    if not compaction.control.rules.counts_every_page:
        # where the scanner stops inside a free block, its rest counts once, or by page if it was merged
        # meanwhile
        scanned = counters.pop("compact_migrate_scanned")
        assert scanned >= compaction.succeeded
    return [*found, counters, compaction.status]


def state(memory: Memory, gpu: Gpu, moves: list[tuple[I64, I64]]) -> list[Any]:
    """Return what moved, the memory, and at last the counters."""
    pages = memory.pages
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *map(np.column_stack, moves)])
    of_pages: list[Array] = [pages.mapping, pages.flags, pages.refcount, pages.skip]
    everything = [pairs, *of_pages, gpu.frame_of, gpu._in_use, memory.zones[0].buddyinfo()]
    return [*(array.tolist() for array in everything), asdict(memory.vmstat)]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    busy=st.sampled_from([0.0, 0.3, 0.9]),
    used=st.sampled_from([0.5, 0.9, 0.98]),
    clumps=st.sampled_from([1, 16, 512]),
    mode=st.sampled_from(MigrateMode),
    kernel=st.sampled_from(sorted(COMPACTION_RULES)),
    watermark=st.sampled_from([0.0, 0.5, 0.95]),
    odd_blocks=st.booleans(),
    grain=st.sampled_from([1, 40, 512]),
)
def test_predicted_or_tried_is_the_same(
    seed: int,
    busy: float,
    used: float,
    clumps: int,
    mode: MigrateMode,
    kernel: str,
    watermark: float,
    odd_blocks: bool,
    grain: int,
) -> None:
    found = []
    for predicts, size in ((True, None), (False, None), (True, grain)):
        memory, gpu = filled(seed, busy, used, clumps)
        zone = memory.zones[0]
        zone.watermark_min = int(zone.free_pages * watermark)
        if odd_blocks:
            memory.pages.pageblock_type[7::2] = MigrateType.UNMOVABLE
        if not predicts:
            blind(memory)
        compaction = Compaction(memory, zone, Request(mode), rules=COMPACTION_RULES[kernel], grain=size)
        compaction.run()
        validate(memory)
        found.append(outcome(memory, gpu, compaction))
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_what_drivers_predict() -> None:
    memory, gpu = filled(1, 0.0, 0.5, 1)
    pfns = gpu.frame_of[gpu.frame_of >= 0]
    pinned = gpu.pinned[gpu.page_at[pfns]]
    assert np.array_equal(gpu.predict_retries(pfns, MigrateMode.SYNC) > 0, pinned)

    class Fickle(PageDriver):
        """Has answers, which may change from one attempt to the next."""

        def answers(self, pages: I64, mode: MigrateMode) -> I64:
            return np.zeros(len(pages), np.int64)

    class Steady(Fickle):
        steady = True

    class Refusing(PageDriver):
        def may_isolate(self, pages: I64, mode: IsolateMode) -> Bool:
            return pages % 2 == 0

    page = np.array([5])
    predicted = [
        predicted_retries(kind(memory), page, MigrateMode.SYNC)
        for kind in (PageDriver, Fickle, Steady, Refusing)
    ]
    assert [None if counts is None else counts.tolist() for counts in predicted] == [[0], None, [0], None]
    assert predicted_retries(None, page, MigrateMode.SYNC) is None


def test_a_driver_may_predict_retries_by_the_old_name() -> None:
    memory, _gpu = filled(1, 0.0, 0.5, 1)
    asked: list[str] = []

    class Old(Gpu):
        """Overrides the built-in prediction by its old name, and calls that of its base class so too."""

        def foresee(self, pages: I64, mode: MigrateMode) -> I64 | None:
            asked.append("old")
            known = super().foresee(pages, mode)
            return None if known is None else known + 3

    class New(Old):
        def predict_retries(self, pages: I64, mode: MigrateMode) -> I64:
            asked.append("new")
            return super().predict_retries(pages, mode) + 1

    class Bare:
        """No PageDriver; it has the calls of the contract and the two optional ones."""

        def foresee(self, pages: I64, mode: MigrateMode) -> I64:
            return np.full(len(pages), 2)

    pfns = memory.alloc_bulk(3)
    old, new = Old(memory), New(memory)
    old.adopt(pfns)
    mode = MigrateMode.SYNC
    assert predicted_retries(old, pfns, mode).tolist() == [3, 3, 3]  # type: ignore[union-attr]
    assert asked == ["old"]
    old.discard(old.page_at[pfns])
    new.adopt(pfns)
    assert predicted_retries(new, pfns, mode).tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert asked == ["old", "new"]
    assert predicted_retries(Bare(), pfns, mode).tolist() == [2, 2, 2]  # type: ignore[arg-type, union-attr]
    # the compaction of its pages asks by the old name as well
    Compaction(memory, memory.zones[0]).run()
    count = len(asked)
    Counted(memory, old.owner)
    old.adopt(memory.alloc_bulk(64))
    Compaction(memory, memory.zones[0]).run()
    assert asked[count:].count("old") > 0


@pytest.mark.parametrize("busy", [0.2, 0.7])
def test_attempts_that_a_busy_gpu_fails(busy: float) -> None:
    """As many in a row as if each of them failed with that chance."""
    memory, _gpu = filled(1, 0.0, 0.5, 1)
    gpu = Gpu(memory, busy=busy, seed=3)
    pfns = memory.alloc_bulk(1000)
    gpu.adopt(pfns)
    eagain_counts = gpu.predict_retries(pfns, MigrateMode.SYNC)
    for k in range(1, 4):
        assert (eagain_counts >= k).mean() == pytest.approx(busy**k, abs=0.06)


COMPACTORS: dict[str, Callable[[Memory, CompactionRules], Allocation | Proactive | Compaction]] = {
    "direct": lambda memory, rules: Allocation(memory, 9, rules=rules),
    "kcompactd": lambda memory, rules: Proactive(memory, 100, rules),
    "compact_memory": lambda memory, rules: Compaction(
        memory, memory.zones[0], Request(MigrateMode.SYNC), rules=rules
    ),
}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    busy=st.sampled_from([0.0, 0.3, 0.9]),
    used=st.sampled_from([0.5, 0.9]),
    clumps=st.sampled_from([1, 16]),
    kernel=st.sampled_from(sorted(COMPACTION_RULES)),
    watermark=st.sampled_from([0.0, 0.5]),
    kinds=st.lists(st.sampled_from(sorted(COMPACTORS)), min_size=1, max_size=3),
)
def test_compactors_that_keep_free_lists_do_the_same(
    seed: int, busy: float, used: float, clumps: int, kernel: str, watermark: float, kinds: list[str]
) -> None:
    """The order of the free lists, on which later searches depend, is the same, too."""
    found = []
    for predicts in (True, False):
        memory, gpu = filled(seed, busy, used, clumps)
        zone = memory.zones[0]
        zone.watermark_min = zone.watermark_low = int(zone.free_pages * watermark)
        if not predicts:
            blind(memory)
        moves = []
        for kind in kinds:
            compactor = COMPACTORS[kind](memory, COMPACTION_RULES[kernel])
            compactor.run()
            moves += compactor.moves
        validate(memory)
        found.append([*state(memory, gpu, moves), free_lists(zone)])
    assert found[0] == found[1]


def free_lists(zone: Zone) -> list[list[int]]:
    zone.drain()
    if zone.lists is None:
        return []
    lists = zone.lists.lists
    return [lists.pages(number).tolist() for number in range(len(lists.counts))]
