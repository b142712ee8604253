"""Compaction scenarios: what memory can be had, and that nothing is lost, whoever goes away when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.migration.drivers.base import NO_PAGE, PageDriver
from cluster.migration.drivers.zsmalloc import ZsMalloc
from cluster.migration.machine import NodeMemory, NodeReport, Turn, blocks_of, compact_inline
from cluster.migration.pages import OWNER_SHIFT, PG_ISOLATED, PG_LOCKED, PG_LRU, USED
from cluster.migration.spec import CompactionSpec, DriverSpec

ZRAM = DriverSpec("swap", "zram", 0.6, 0.7, (("object_size", 1300),))
GPU = DriverSpec("buffers", "gpu", 0.25, 0.5, (("busy", 0.3),))
SPEC = CompactionSpec(2, 8 * 512, (ZRAM, GPU), lru=0.1, unmovable=0.05, seed=7, attempts=1)


def test_high_order_memory_is_there_only_if_pages_can_move() -> None:
    for report in compact_inline(SPEC):
        assert report.obtained_before == report.obtained_without == 0
        assert report.obtained_after == 1
        assert blocks_of(report.after, 9) > blocks_of(report.without, 9)
        sizes = 1 << np.arange(11)
        assert (report.before @ sizes) == (report.after @ sizes) == (report.without @ sizes)


@pytest.mark.parametrize("kernel", ["4.8", "6.1"])
@pytest.mark.parametrize("compactors", [1, 2, 4])
def test_counts_agree_with_vmstat(kernel: str, compactors: int) -> None:
    for report in compact_inline(replace(SPEC, kernel=kernel, compactors=compactors, turn=256)):
        counts = report.by_driver.values()
        assert list(report.by_driver) == ["swap", "buffers", "lru"]
        assert sum(c.moved for c in counts) == report.vmstat["pgmigrate_success"] > 0
        assert all(c.isolated == c.moved + c.put_back and c.failed <= c.put_back for c in counts)
        assert report.by_driver["buffers"].retried > 0
        assert (report.vmstat["skipped_isolated"] > 0) == (compactors > 1)
        assert report.seconds > 0


def test_nodes_differ_and_runs_do_not() -> None:
    first, again, other = compact_inline(SPEC), compact_inline(SPEC), compact_inline(replace(SPEC, seed=8))
    assert [same(a, b) for a, b in zip(first, again, strict=True)] == [True, True]
    assert not same(first[0], replace(first[1], node=0))
    assert not same(first[0], other[0])


def same(a: NodeReport, b: NodeReport) -> bool:
    return repr(a) == repr(b)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    mode=st.sampled_from(["async", "sync-light", "sync"]),
    kernel=st.sampled_from(["4.8", "6.1"]),
    batch=st.sampled_from([1, 5, 32]),
    turn=st.sampled_from([1, 3, 20]),
    refuse=st.sampled_from([0.0, 0.3]),
    fail=st.sampled_from([0.0, 0.3]),
    data=st.data(),
)
def test_nothing_is_lost_with_those_who_drive_compactors(
    seed: int, mode: str, kernel: str, batch: int, turn: int, refuse: float, fail: float, data: st.DataObject
) -> None:
    """Compactors are abandoned in the middle of anything, begin anew or not; then the others finish."""
    faulty = DriverSpec("odd", "faulty", 0.3, 0.5, (("refuse", refuse), ("fail", fail), ("again", fail)))
    spec = CompactionSpec(
        1, 4 * 512, (replace(ZRAM, share=0.5), faulty), lru=0.1, unmovable=0.05, seed=seed, compactors=3
    )
    node = NodeMemory(replace(spec, mode=mode, kernel=kernel, batch=batch, turn=turn), 0)
    before = holdings(node)
    generations = [0, 0, 0]
    for compactor, dies in data.draw(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60)):
        assert node.take(Turn(0, compactor, generations[compactor] - 1)) is False
        node.take(Turn(0, compactor, generations[compactor]))
        if dies:
            generations[compactor] += 1
            node.abandon(compactor, generations[compactor])
    for compactor in range(3):
        while not node.take(Turn(0, compactor, generations[compactor])):
            pass
    assert holdings(node) == before


def holdings(node: NodeMemory) -> list[object]:
    """Who has what, by page and content, wherever it is; nothing is held by the VM."""
    memory = node.memory
    pages = memory.pages
    used = pages.order[: pages.count] == USED
    assert not (pages.flags & (PG_LOCKED | PG_ISOLATED)).any()
    assert ((pages.refcount == 1) == used).all()
    assert memory.zones[0].free_pages == np.count_nonzero(~used)
    found: list[object] = [np.count_nonzero(used), np.count_nonzero(pages.flags & PG_LRU)]
    frames = []
    for driver in node.filled.drivers:
        assert isinstance(driver, PageDriver)
        live = np.flatnonzero(driver.frame_of != NO_PAGE)
        mine = driver.frame_of[live]
        frames.append(mine)
        assert (driver.page_at[mine] == live).all()
        assert (pages.mapping[mine] >> OWNER_SHIFT == driver.owner).all()
        found.append(live.tolist())
        if isinstance(driver, ZsMalloc):
            found.append(driver.content[mine].tolist())
    everywhere = np.concatenate(frames)
    assert len(np.unique(everywhere)) == len(everywhere)
    assert used[everywhere].all()
    return found
