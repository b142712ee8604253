"""Searches of the free lists for targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import COMPACTION_RULES
from cluster.compaction.movable.targets import take_targets
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES, PageMap
from cluster.compaction.zone.compact_control import Control, Request
from cluster.compaction.zone.free_scanner import FreeScanner

PAGEBLOCKS = 16
PAGES = PAGEBLOCKS * PAGEBLOCK_PAGES


class Scan:
    """A free scanner of an async direct compaction on memory of which a part is free."""

    def __init__(self, kernel: str, seed: int, shares: list[float], spare: int) -> None:
        rng = np.random.default_rng(seed)
        free = rng.random(PAGES) < np.repeat(shares, PAGEBLOCK_PAGES)
        pages = PageMap(PAGES)
        pages.set_free(free)
        self.zone = Zone(pages, 0, PAGES, watermark_min=max(int(free.sum()) - spare, 0))
        self.memory = Memory(pages, [self.zone])
        request = Request(MigrateMode.ASYNC, 9, whole_zone=False, ignore_skip_hint=False, direct=True)
        self.control = Control(self.zone, request, COMPACTION_RULES[kernel])
        self.control.start()
        self.targets = FreeScanner(self.memory, self.control, None)

    def state(self) -> tuple[object, ...]:
        """All that the next search depends on, and what was counted."""
        c, zone, lists = self.control, self.zone, self.zone.lists
        assert lists is not None
        counted = c.free_scanned, c.fast_search_fail, c.search_order, c.free_pfn, c.wanted
        free = zone.free_pages, zone.cache.free_pfn, lists.counts, self.memory.vmstat.compact_isolated
        pages = zone.pages.order.tolist(), zone.pages.skip.tolist()
        blocks = [lists.lists.pages(number).tolist() for number in range(len(lists.lists.counts))]
        return counted, free, blocks, pages


def take_one_by_one(targets: FreeScanner, count: int, *, all_first: bool) -> Pfns:
    taken: list[Pfns] = []
    while len(taken) < count and len(page := targets.take(1, 0 if all_first else len(taken))):
        taken.append(page)
    return np.concatenate([np.zeros(0, np.int64), *taken])


@pytest.mark.parametrize("kernel", ["6.1", "6.18"])
@given(
    st.integers(0, 1000),
    st.lists(st.sampled_from([0, 0.02, 0.1, 0.4, 0.9]), min_size=PAGEBLOCKS, max_size=PAGEBLOCKS),
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, PAGEBLOCKS - 1)), min_size=1, max_size=8),
    st.integers(1, 200) | st.just(PAGES),
    st.integers(0, PAGEBLOCKS - 1),
)
def test_targets_taken_together_are_those_taken_one_by_one(
    kernel: str, seed: int, shares: list[float], batches: list[tuple[int, int]], spare: int, cached: int
) -> None:
    all_first = COMPACTION_RULES[kernel].targets_first
    together, single = (Scan(kernel, seed, shares, spare) for _ in range(2))
    for scan in (together, single):
        scan.zone.cache.free_pfn = cached * PAGEBLOCK_PAGES
    for count, block in batches:
        for scan in (together, single):
            scan.control.wanted = count
            scan.control.migrate_pfn = min(block * PAGEBLOCK_PAGES, scan.control.free_pfn)
        expected = take_one_by_one(single.targets, count, all_first=all_first)
        assert take_targets(together.targets, count, all_first=all_first).tolist() == expected.tolist()
        assert together.state() == single.state()
    assert together.targets.drain().tolist() == single.targets.drain().tolist()


def test_the_end_of_the_targets_is_found_once() -> None:
    """As in migrate_pages_batch(), which asks once for the target that there is not."""
    scan = Scan("6.18", 1, [0] * (PAGEBLOCKS - 1) + [0.02], PAGES)
    scan.control.wanted = 32
    targets = scan.targets
    taken = take_targets(targets, 32, all_first=True)
    assert 0 < len(taken) < 32
    scanned = scan.control.free_scanned
    targets.give_back(taken, none_left=True)
    assert targets.take(32).tolist() == taken.tolist()
    assert len(targets.take(1)) == 0
    assert scan.control.free_scanned == scanned
    # from now on there may be others
    assert len(targets.take(1)) == 0
    assert scan.control.free_scanned > scanned
