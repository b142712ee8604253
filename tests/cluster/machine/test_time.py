"""Simulated time, worked out by hand: of one ksmd, and of one for each node."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.machine.clock import wakeup_period
from cluster.machine.cost import ksmd_work
from cluster.machine.pass_result import PassResult
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import (
    ContentModel,
    CostSpec,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import fully_connected

#: Nothing takes time.
FREE = CostSpec(*[0.0] * len(fields(CostSpec)))
#: Two processes of 100 pages are on node 0, a third on node 1; each visit takes 1 ms. A jiffy is 4 ms.
SPEC = SimulationSpec(
    machine=MachineSpec(2, 400, fully_connected(2)),
    ksm=KsmSpec(merge_across_nodes=0, smart_scan=0, pages_to_scan=30, sleep_millisecs=20),
    processes=(ProcessSpec("a", 3, (RegionSpec("r", 100, ContentModel.UNIQUE, copies=2),)),),
    passes=3,
    cost=replace(FREE, visit=1e6),
)


def simulated(threads: str, **changes: Any) -> list[PassResult]:
    spec = replace(SPEC, ksm=replace(SPEC.ksm, threads=threads), **changes)
    return list(run_passes(spec, INLINE))


def ends(results: list[PassResult]) -> list[float]:
    """When each pass was over."""
    return [result.simulated_seconds for result in results]


@pytest.mark.parametrize(
    ("sleep_millisecs", "hz", "slept"),
    [
        # Measured on Linux 6.18 with HZ=250, with hardly any work in between.
        *((1, 250, 0.008), (4, 250, 0.008), (10, 250, 0.016), (20, 250, 0.024), (50, 250, 0.056)),
        (100, 250, 0.104),
        *((20, 100, 0.03), (20, 1000, 0.021), (20, 300, 0.007 * 10 / 3), (0, 250, 0.0)),
        # 62 jiffies are the most that a timer counts one by one; 63 and more are due at each 8th tick.
        *((248, 250, 0.252), (252, 250, 0.256), (1000, 250, 1.024), (1016, 250, 1.024), (1024, 250, 1.056)),
        # From 504 jiffies on at each 64th.
        *((2012, 250, 2.016), (2016, 250, 2.048)),
    ],
)
def test_ksmd_sleeps_in_jiffies(sleep_millisecs: int, hz: int, slept: float) -> None:
    assert wakeup_period(np.zeros(1), sleep_millisecs, hz) == pytest.approx([slept])


def test_work_takes_time_by_the_jiffy() -> None:
    """A timer is due at a tick after the work: what is left of a jiffy is slept."""
    work = np.array([0.0, 0.0039, 0.004, 0.0099])
    assert wakeup_period(work, 20, 250) == pytest.approx([0.024, 0.024, 0.028, 0.032])
    assert wakeup_period(work, 0, 250) == pytest.approx(work)


def test_one_ksmd_does_all_in_turn() -> None:
    # 300 pages: 30 ms of work and a sleep, 52 ms, ten times; then it finds the end, and sleeps 24 ms.
    assert ends(simulated("one")) == pytest.approx([0.544, 1.088, 1.632])


def test_a_wait_for_a_cpu_is_part_of_each_wake_up() -> None:
    cost = replace(SPEC.cost, cpu_wait=4e6)
    assert ends(simulated("one", cost=cost)) == pytest.approx([0.588, 1.176, 1.764])
    assert simulated("one", cost=cost)[0].nodes["ksmd_cpu_ns"].sum() == 3e8


def test_a_ksmd_for_each_node_takes_as_long_as_the_slowest() -> None:
    # Node 0: 52 ms six times, then 20 pages, 44 ms. Node 1: 52 ms three times, then 10 pages; then it waits.
    results = simulated("per-node")
    assert ends(results) == pytest.approx([0.356, 0.712, 1.068])
    assert all(result.nodes["ksmd_cpu_ns"].tolist() == [2e8, 1e8] for result in results)


def test_threads_wait_for_each_other_at_the_end_of_a_pass_not_of_a_window() -> None:
    # A window is a process. The third is node 1's, which was at work meanwhile.
    assert ends(simulated("one", windows_per_pass=3)) == pytest.approx([0.544, 1.088, 1.632])
    assert ends(simulated("per-node", windows_per_pass=3)) == pytest.approx([0.356, 0.712, 1.068])


def test_with_local_memory_both_do_the_same() -> None:
    one, many = simulated("one"), simulated("per-node")
    assert sum(result.nodes["pages_merged"].sum() for result in one) > 0
    for a, b in zip(one, many, strict=True):
        assert all(np.array_equal(a.nodes[name], b.nodes[name]) for name in a.nodes)


@pytest.mark.parametrize(
    ("threads", "start", "written"),
    [
        # Of one ksmd's passes, the first scans its last page at 0.520 s, and ends with a sleep at 0.544 s.
        ("one", 0.4, [300, 600, 600]),
        ("one", 0.51, [300, 600, 600]),
        ("one", 0.53, [0, 600, 600]),
        # Of two, at 0.332 s and 0.356 s.
        ("per-node", 0.34, [0, 600, 600]),
        ("per-node", 0.4, [0, 300, 600]),
    ],
)
def test_writes_follow_the_time_of_the_pass(threads: str, start: float, written: list[int]) -> None:
    """All pages are written from `start` on: during the sleep before a pass, and until its last page."""
    region = replace(SPEC.processes[0].regions[0], writes=(WriteSpec(1e6, start=start),))
    kinds = (replace(SPEC.processes[0], regions=(region,)),)
    assert [int(r.nodes["pages_written"].sum()) for r in simulated(threads, processes=kinds)] == written


def test_cpu_time_beyond_what_a_counter_holds_is_refused() -> None:
    """300 visits of 2^53 ns each are less than 2^62 ns; those of a second pass are not."""
    cost = replace(FREE, visit=2.0**53)
    (first,) = simulated("one", cost=cost, passes=1)
    assert first.nodes["ksmd_cpu_ns"].sum() == 300 * 2**53
    with pytest.raises(SimulationError, match=r"in pass 2, ksmd has used 2\^62 ns of CPU time"):
        simulated("one", cost=cost, passes=2)


@pytest.mark.parametrize("run", [0, 1])
def test_time_passes_with_nothing_to_scan(run: int) -> None:
    """ksmd sleeps after each ksm_do_scan(); without ksmd, a pass takes as long as one of an idle ksmd."""
    untouched = RegionSpec("r", 100, ContentModel.UNTOUCHED, writes=(WriteSpec(1e6, start=0.05),))
    spec = replace(SPEC, ksm=replace(SPEC.ksm, run=run), processes=(ProcessSpec("a", 2, (untouched,)),))
    results = list(run_passes(spec, INLINE))
    assert ends(results)[:2] == pytest.approx([0.024, 0.048])
    (later,) = list(run_passes(replace(spec, passes=4), INLINE))[3:]
    written = [int(r.nodes["pages_written"].sum()) for r in (*results, later)]
    # ksmd's third pass finds the end at once, at 0.048 s, and sleeps until 0.072 s.
    assert written == ([0, 0, 0, 400] if run else [0, 0, 200, 200])
    assert (later.full_scans, later.windows) == ((4, 1) if run else (0, 0))


def rewritten(content: Rewrite, windows: int | None = None) -> list[PassResult]:
    """64 equal pages, written all the time, before 960 that differ; ksmd scans 64 pages at a time."""
    regions = (
        RegionSpec(
            "same", 64, ContentModel.POOL, pool="p", distinct=1, writes=(WriteSpec(1e6, content=content),)
        ),
        RegionSpec("different", 960, ContentModel.UNIQUE),
    )
    spec = replace(
        SPEC,
        machine=MachineSpec(1, 2000, fully_connected(1)),
        ksm=KsmSpec(smart_scan=0, pages_to_scan=64),
        processes=(ProcessSpec("a", 1, regions),),
        windows_per_pass=windows,
    )
    return list(run_passes(spec, INLINE))


@pytest.mark.parametrize("content", [Rewrite.ORIGINAL, Rewrite.REDRAW])
def test_writes_fall_into_the_pass_where_they_matter(content: Rewrite) -> None:
    """What merges at the start of a pass is written before its end, and its stable node is found stale."""
    last = rewritten(content)[-1]
    assert last.windows == 16
    assert last.nodes["pages_merged"].sum() == 63  # one frame becomes the KSM frame
    assert [int(last.nodes[name].sum()) for name in ("pages_shared", "pages_sharing", "ksm_frames")] == [
        0,
        0,
        0,
    ]
    assert last.nodes["pages_volatile"].sum() == 64
    (coarse,) = rewritten(content, windows=1)[-1:]
    assert coarse.nodes["pages_sharing"].sum() == 63


def test_writes_that_cannot_merge_need_no_windows() -> None:
    assert [result.windows for result in rewritten(Rewrite.UNIQUE)] == [1, 1, 1]


def work(
    spec: SimulationSpec = SPEC, wakeups: tuple[float, float] = (0, 0), **counts: list[int]
) -> dict[str, list[float]]:
    """What ksmd did on two nodes, by term; where nothing is given, the counts are 0."""
    names = ("pages_scanned", "pages_skipped", "rmap_items", "checksums", "changed", "pages_merged")
    names += ("pages_shared", "pages_unshared", "thp_split_page", "thp_zero_pages", "huge_checksums")
    old = {name: np.zeros(2, np.int64) for name in names}
    new = old | {name: np.array(count) for name, count in counts.items()}
    return {
        term: count.tolist() for term, count in ksmd_work(spec, old, new, np.array(wakeups, float)).items()
    }


@pytest.mark.parametrize("merge_across_nodes", [0, 1])
def test_a_search_walks_the_levels_of_both_trees(merge_across_nodes: int) -> None:
    """log2(4) levels of the stable tree, and of the unstable one, which grows, log2(8) less log2(e)."""
    unshared = [6, 1] if merge_across_nodes else [7, 3]
    shared = [3, 0] if merge_across_nodes else [3, 3]
    spec = replace(SPEC, ksm=replace(SPEC.ksm, merge_across_nodes=merge_across_nodes), cost=CostSpec())
    done = work(spec, checksums=[10, 4], changed=[0, 2], pages_shared=shared, pages_unshared=unshared)
    on_node_1 = 3 if merge_across_nodes else 2
    assert done["stable_level"] == [10 * 2, 2 * 2]
    assert done["unstable_level"] == pytest.approx([10 * (3 - 1.4427), 2 * (on_node_1 - 1.4427)], rel=1e-4)
    assert done["uncached_level"] == [0, 0]


def test_levels_below_those_that_the_cache_holds() -> None:
    spec = replace(SPEC, cost=CostSpec(cached_tree=15))
    done = work(spec, checksums=[10, 0], pages_shared=[63, 0], pages_unshared=[255, 0])
    assert done["uncached_level"] == pytest.approx([10 * (6 - 4 + 8 - 1.4427 - 4), 0], rel=1e-4)


def test_what_is_merged_is_not_looked_up_in_the_unstable_tree() -> None:
    done = work(checksums=[10, 0], pages_merged=[10, 0], pages_unshared=[63, 0], pages_shared=[1, 0])
    assert [done[term][0] for term in ("stable_level", "unstable_level", "merge", "stable_node")] == [
        10,
        0,
        10,
        1,
    ]


def test_an_rmap_item_is_made_once() -> None:
    assert work(rmap_items=[7, -3])["first_visit"] == [7, 0]


def test_each_huge_page_split_counts() -> None:
    done = work(thp_split_page=[2, 0], thp_zero_pages=[700, 0])
    assert (done["split"], done["split_zero"]) == ([2, 0], [700, 0])


def test_pages_that_became_ksm_pages_in_this_pass_are_not_checksummed() -> None:
    """Four equal pages, inherited by two workers.

    The second page merges with the first, and its frame becomes a KSM frame. When ksmd comes to the workers,
    their second pages are KSM pages.
    """
    region = RegionSpec("r", 4, ContentModel.POOL, distinct=1)
    kind = ProcessSpec("parent", 1, (region,), workers=2)
    machine = MachineSpec(1, 64, fully_connected(1))
    spec = replace(SPEC, machine=machine, processes=(kind,), passes=2, cost=replace(FREE, checksum=100))
    first, second = run_passes(spec, INLINE)
    assert second.nodes["pages_sharing"].sum() == 11
    assert first.nodes["ksmd_cpu_ns"].sum() == 12 * 100
    assert second.nodes["ksmd_cpu_ns"].sum() == 10 * 100


def test_checksums_in_huge_pages_take_less() -> None:
    """Three processes of 512 pages with a huge page each, and a fourth without, all unique."""
    huge = RegionSpec("r", 512, ContentModel.UNIQUE, huge_pages=1.0)
    kinds = ProcessSpec("huge", 3, (huge,)), ProcessSpec("small", 1, (replace(huge, huge_pages=0.0),))
    cost = replace(FREE, checksum=100, huge_saves=40)
    machine = MachineSpec(1, 4096, fully_connected(1))
    spec = replace(SPEC, machine=machine, processes=kinds, passes=1, cost=cost)
    (result,) = run_passes(spec, INLINE)
    assert result.nodes["thp_split_page"].sum() == 0
    assert result.nodes["ksmd_cpu_ns"].sum() == 4 * 512 * 100 - 3 * 512 * 40


def test_ksmd_is_equally_often_on_each_node() -> None:
    """Half of the time a page of node 0 is 30 units farther away than local memory, one of node 1 is 10."""
    distance = np.array([[10, 20], [40, 10]])
    spec = replace(SPEC, machine=replace(SPEC.machine, distance=distance), cost=replace(FREE, remote=1))
    assert work(spec, checksums=[10, 20])["remote"] == [15, 10]
    threads = replace(spec, ksm=replace(spec.ksm, threads="per-node"))
    assert work(threads, checksums=[10, 20])["remote"] == [0, 0]


def test_a_pass_that_skips_all_pages_takes_time() -> None:
    """Pages that stay alone are skipped in the fifth pass; ksmd's 300 ms of it are all in one wake-up."""
    spec = replace(
        SPEC,
        ksm=replace(SPEC.ksm, smart_scan=1),
        processes=(ProcessSpec("a", 3, (RegionSpec("r", 100, ContentModel.UNIQUE),)),),
        passes=5,
        cost=replace(FREE, skip=1e6),
    )
    *_, before, last = run_passes(spec, INLINE)
    assert last.nodes["pages_skipped"].sum() == 300
    assert last.nodes["ksmd_cpu_ns"].sum() == 3e8
    assert last.simulated_seconds - before.simulated_seconds == pytest.approx(0.324)


@pytest.mark.parametrize(("sleep_millisecs", "cold"), [(20, 1.0), (0, 0.0)])
def test_searches_after_a_sleep_find_a_cold_tree(sleep_millisecs: int, cold: float) -> None:
    """Of eight searches after each wake-up in a tree of 56 pages, each comes to log2(1 + 56 / 8) cold pages.

    The unstable tree grows to 152, log2(1 + 152 / e / 4) for each of the four that are not merged.
    """
    spec = replace(SPEC, ksm=replace(SPEC.ksm, sleep_millisecs=sleep_millisecs))
    stable = work(spec, (5, 1), checksums=[40, 0], pages_shared=[56, 0], pages_merged=[40, 0])
    assert stable["cold_level"] == pytest.approx([cold * 40 * 3, 0])
    both = work(spec, (5, 1), checksums=[40, 0], pages_unshared=[152, 0], pages_merged=[20, 0])
    assert both["cold_level"] == pytest.approx([cold * 20 * 3.9049, 0], rel=1e-4)


def test_few_visits_after_a_sleep_are_cold() -> None:
    """Each of 64 visits is log2(1 + 1024 / 64) units cold, each of 1024 one, and a single one ten."""
    assert work(wakeups=(2, 1), pages_scanned=[128, 1024])["cold_visit"] == pytest.approx(
        [128 * 4.0875, 1024], rel=1e-4
    )
    assert work(wakeups=(3, 0), pages_scanned=[3, 0])["cold_visit"] == pytest.approx(
        [3 * 10.0014, 0], rel=1e-4
    )


def test_a_pass_without_sleeps_looks_at_each_page_of_the_tree_once() -> None:
    """One search for each page of the tree: log2(1 + 1)."""
    assert work(wakeups=(1, 0), checksums=[64, 0], pages_shared=[64, 0], pages_merged=[64, 0])[
        "cold_level"
    ] == [64, 0]


@pytest.mark.parametrize(("threads", "wakeups"), [("one", 11), ("per-node", 12)])
def test_each_wake_up_takes_cpu_time(threads: str, wakeups: int) -> None:
    """300 pages, 30 at a time, and once more where the pass of a thread ends."""
    first, *_ = simulated(threads, cost=replace(FREE, wakeup=1e6))
    assert first.nodes["ksmd_cpu_ns"].sum() == pytest.approx(wakeups * 1e6)
