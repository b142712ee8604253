"""`history`: what ksmd has done before the start of a simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import fully_connected

#: Three processes with 9,000 pages of their own, and 400 that all of them have.
SPEC = SimulationSpec(
    machine=MachineSpec(2, 40_000, fully_connected(2)),
    ksm=KsmSpec(history="steady"),
    processes=(
        ProcessSpec(
            "a",
            3,
            (
                RegionSpec("own", 9_000, ContentModel.UNIQUE),
                RegionSpec("common", 400, ContentModel.REPLICATED),
                RegionSpec("private", 500, ContentModel.UNIQUE, mergeable=False),
            ),
        ),
    ),
    passes=10,
)
OWN = 27_000


def simulated(spec: SimulationSpec = SPEC, **knobs: Any) -> list[PassResult]:
    return list(run_passes(replace(spec, ksm=replace(spec.ksm, **knobs)), INLINE))


def total(result: PassResult, name: str) -> int:
    return int(result.nodes[name].sum())


def test_all_that_can_merge_has_merged_before_the_start() -> None:
    first = simulated()[0]
    assert (total(first, "pages_shared"), total(first, "pages_sharing")) == (400, 800)
    assert total(first, "pages_merged") == 0
    assert first.full_scans == 1


def test_each_pass_visits_a_ninth_of_the_pages_that_do_not_merge() -> None:
    for result in simulated():
        unshared = total(result, "pages_unshared")
        assert unshared == pytest.approx(OWN / 9, rel=0.05)
        assert total(result, "pages_volatile") == OWN - unshared == total(result, "pages_skipped")
        # A merged page is never skipped.
        assert total(result, "pages_scanned") == unshared + 1200


def test_in_nine_passes_each_page_is_visited_once() -> None:
    passes = simulated()
    assert sum(total(result, "pages_unshared") for result in passes[:9]) == OWN
    assert total(passes[9], "pages_unshared") == total(passes[0], "pages_unshared")


def test_pages_of_a_host_that_has_done_thirteen_passes() -> None:
    """Pages that came 1 to 13 passes before: those in their 2nd, 3rd, 4th, 6th, 9th and 14th are visited."""
    first = simulated(history_passes=13)[0]
    assert total(first, "pages_unshared") == pytest.approx(OWN * 6 / 13, rel=0.03)


def test_pages_of_one_pass_are_of_one_age() -> None:
    assert [total(r, "pages_skipped") for r in simulated(history_passes=1)[:5]] == [0, 0, 0, OWN, 0]


def test_without_smart_scan_all_pages_are_visited() -> None:
    for result in simulated(smart_scan=0):
        assert total(result, "pages_unshared") == OWN
        assert total(result, "pages_shared") == 400


def test_time_and_writes_begin_with_the_first_pass() -> None:
    """Nothing is written before the start: what writes in the first second has merged until then."""
    common = RegionSpec("common", 400, ContentModel.REPLICATED, writes=(WriteSpec(1e6, stop=0.5),))
    spec = replace(SPEC, processes=(ProcessSpec("a", 3, (common,)),), passes=3)
    passes = simulated(spec, pages_to_scan=10)
    assert total(passes[0], "pages_written") == total(passes[0], "cow_ksm") == 1200
    # Items leave their stable nodes when ksmd visits them next.
    assert [total(of_pass, "pages_sharing") for of_pass in passes] == [800, 0, 0]
    # 1,200 visits of 10 pages, 24 ms each, and the last sleep.
    assert passes[0].simulated_seconds == pytest.approx(121 * 0.024)


def test_the_seed_decides_the_phases() -> None:
    one, again, other = simulated(), simulated(), simulated(replace(SPEC, seed=2))
    for a, b in zip(one, again, strict=True):
        assert all(np.array_equal(a.nodes[name], b.nodes[name]) for name in a.nodes)
    assert total(one[0], "pages_unshared") != total(other[0], "pages_unshared")
