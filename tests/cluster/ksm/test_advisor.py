"""The scan-time advisor: its arithmetic, real ksmd's answers, and simulations under it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.ksm.advisor import Advisor
from cluster.machine.pass_result import PassResult
from cluster.spec.knobs import UINT_MAX
from cluster.spec.scenario import (
    ContentModel,
    CostSpec,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
)
from cluster.spec.topology import fully_connected
from tests.paths import DATA

RECORD = json.loads((DATA / "advisor/host-6.18.json").read_text())
ADVISED = KsmSpec(advisor_mode="scan-time")

above_zero = st.integers(1, UINT_MAX)


def answers(knobs: KsmSpec, *passes: tuple[int, int]) -> list[int]:
    """pages_to_scan before the first and after each of some passes, given in ms of time and of CPU time."""
    advisor = Advisor(knobs)
    pages = [advisor.pages_to_scan]
    for scan_ms, cpu_ms in passes:
        advisor.end_pass(scan_ms, cpu_ms)
        pages.append(advisor.pages_to_scan)
    return pages


def test_by_hand() -> None:
    assert answers(
        ADVISED,
        # factor 200, change 30: wanted 75; 20 % of a CPU, so 25 pages for each: at least 250
        (100_000, 20_000),
        # factor 133, change 0.7 * 30 + 0.3 * 150 = 66: wanted 123, at least 250
        (150_000, 15_000),
        # factor 66, change 106: wanted 400; 80 % of a CPU, 3 pages for each: at most 210
        (300_000, 240_000),
        # factor 1, change 2074: wanted 435,540; 0 counts as 1 % of a CPU: at most 70 * 210
        (20_000_000, 1_000),
        # factor 0 counts as 1, change 1601: above advisor_max_pages_to_scan
        (100_000_000, 10_000_000),
        # 0 s count as 1: factor 20,000, change 1121: wanted 1681; 90 % of a CPU, 333 pages for each
        (900, 900),
    ) == [500, 250, 250, 210, 14_700, 30_000, 3_330]  # fmt: skip


def test_the_product_that_the_kernel_keeps_in_32_bits() -> None:
    knobs = replace(ADVISED, advisor_min_pages_to_scan=50_000_000, advisor_max_pages_to_scan=UINT_MAX)
    # 5e9 - 2**32 = 705,032,704: wanted 2,115,098, not 15,000,000; 90 % of a CPU, 555,555 pages for each
    assert answers(knobs, (200_000, 180_000)) == [50_000_000, 5_555_550]


def test_without_the_advisor_nothing_changes() -> None:
    assert answers(KsmSpec(pages_to_scan=7), (1000, 10), (9000, 9000)) == [7, 7, 7]


@pytest.mark.parametrize("run", RECORD["runs"], ids=[run["about"] for run in RECORD["runs"]])
def test_real_ksmd(run: dict[str, Any]) -> None:
    measured = [(seconds * 1000, seconds * 10 * percent) for seconds, percent, _ in run["passes"]]
    got = answers(replace(ADVISED, **run["knobs"]), *measured)
    assert got == [run["pages_to_scan"], *(pages for _, _, pages in run["passes"])]


@given(
    st.builds(
        KsmSpec,
        advisor_mode=st.just("scan-time"),
        advisor_max_cpu=st.integers(0, UINT_MAX),
        advisor_max_pages_to_scan=above_zero,
        advisor_min_pages_to_scan=above_zero,
        advisor_target_scan_time=above_zero,
    ),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1),
)
def test_bounds(knobs: KsmSpec, passes: list[tuple[int, int]]) -> None:
    """What holds whatever is measured: the maximum, and 10 pages, for a kernel whose minimum is none."""
    first, *later = answers(knobs, *passes)
    assert first == knobs.advisor_min_pages_to_scan
    most = knobs.advisor_max_pages_to_scan
    assert all(min(10, most) <= pages <= most for pages in later)


# Simulations

PAGES = 8000


def simulated(passes: int, windows: int = 1, **knobs: Any) -> list[PassResult]:
    """8000 pages that do not merge at 1 ms of CPU each, with a second of sleep in between."""
    spec = SimulationSpec(
        machine=MachineSpec(2, PAGES, fully_connected(2)),
        ksm=replace(ADVISED, smart_scan=0, sleep_millisecs=1000, **knobs),
        processes=(ProcessSpec("a", 1, (RegionSpec("r", PAGES, ContentModel.UNIQUE),)),),
        passes=passes,
        windows_per_pass=windows,
        cost=CostSpec(1e6, *[0.0] * (len(fields(CostSpec)) - 1)),
    )
    return list(run_passes(spec, INLINE))


def pages_to_scan(results: list[PassResult]) -> list[int]:
    return [result.pages_to_scan for result in results]


def seconds(results: list[PassResult]) -> list[float]:
    """How long each pass took."""
    return [b - a for a, b in pairwise([0.0, *(result.simulated_seconds for result in results)])]


def test_passes_by_hand() -> None:
    results = simulated(3, advisor_target_scan_time=40)
    # 16 times 1.504 s, 8 s of it CPU: 24 s, 33 %. Factor 166, change 30: wanted 90; 15 pages a percent: 150
    # 53 times 1.152 s, and 50 pages: 61 s, 13 %. Factor 65, change 97: wanted 223; 11 pages a percent
    assert pages_to_scan(results) == [500, 150, 223]
    # With the sleep behind the pass: 1.024, 1.056 and 1.216 s after the last pages.
    assert seconds(results) == pytest.approx([24.064 + 1.024, 61.056 + 1.056, 35 * 1.248 + 1.216])


def test_passes_come_to_take_the_target_time() -> None:
    results = simulated(14, advisor_target_scan_time=40)
    times = seconds(results)
    assert abs(times[0] - 40) > 10
    assert abs(times[1] - 40) > 10
    assert all(40 <= time <= 44 for time in times[-4:])


def test_the_cpu_bounds_come_before_the_target() -> None:
    # 8 s of CPU are 20 % of 40 s,
    assert seconds(simulated(14, advisor_target_scan_time=10, advisor_max_cpu=20))[-1] >= 35
    # and 10 % of 80 s.
    assert seconds(simulated(14, advisor_target_scan_time=500))[-1] <= 90


def test_the_advisor_acts_at_the_end_of_a_pass_only() -> None:
    whole = pages_to_scan(simulated(6, advisor_target_scan_time=40))
    assert len(set(whole)) > 3
    assert pages_to_scan(simulated(6, windows=7, advisor_target_scan_time=40)) == whole


def test_a_ksmd_that_does_not_run_is_not_advised() -> None:
    assert pages_to_scan(simulated(3, run=0)) == [500] * 3


def test_without_the_advisor_passes_are_as_configured() -> None:
    results = simulated(3, advisor_mode="none", pages_to_scan=80)
    assert pages_to_scan(results) == [80] * 3
    assert seconds(results) == pytest.approx([108.8 + 1.024] * 3)
