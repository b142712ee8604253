"""The order of free lists, and the per-cpu list before them."""

from __future__ import annotations

import numpy as np

from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.free_lists import FreeLists
from cluster.compaction.pages.page_map import MigrateType, PageMap
from cluster.compaction.pages.per_cpu_list import PcpRules, PerCpuList

MOVABLE = MigrateType.MOVABLE


def lists_of(*free: int) -> FreeLists:
    """Free lists of a zone of 1024 pages, of which these are free."""
    pages = PageMap(1024)
    pages.set_free(np.isin(np.arange(1024), free))
    return Zone(pages, 0, 1024).keep_lists(grows=False)


def blocks(lists: FreeLists, order: int) -> list[int]:
    return lists.lists.pages(lists.number(order, MOVABLE)).tolist()


def test_freed_pages_come_first_unless_they_will_merge_soon() -> None:
    lists = lists_of(0, 10, 20)
    # 21 joins 20; 40 is alone; 42 and 43 are free as a pair before 40, so 40 is kept for its buddy
    lists.release(np.array([21, 42, 43, 40]))
    assert blocks(lists, 0) == [10, 0, 40]
    assert blocks(lists, 1) == [42, 20]


def test_a_list_turns_round_to_any_of_its_blocks() -> None:
    lists = lists_of(0, 10, 20, 30)
    assert blocks(lists, 0) == [30, 20, 10, 0]
    lists.lists.turn(lists.number(0, MOVABLE), 10)
    assert blocks(lists, 0) == [10, 0, 30, 20]
    lists.lists.turn(lists.number(0, MOVABLE), 10)
    assert blocks(lists, 0) == [10, 0, 30, 20]


def test_the_first_block_that_is_whole_is_captured() -> None:
    lists = lists_of(*range(511), *range(512, 1023))
    # without that, both pageblocks would become one block
    assert lists.release(np.array([1023, 511]), capture=9) == 512
    assert blocks(lists, 9) == [0]
    assert lists.counts == [0] * 9 + [1, 0]


def test_a_full_per_cpu_list_gives_up_twice_as_many_pages_each_time() -> None:
    pcp = PerCpuList(PcpRules(high=225, batch=15))
    groups = pcp.put(np.arange(2000))
    assert [len(group) for group in groups[:7]] == [15, 30, 60, 120, 210, 210, 210]
    # the oldest ones leave, in their order
    assert np.concatenate([*groups, pcp.take_all()]).tolist() == list(range(2000))
