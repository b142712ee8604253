"""When a run ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.machine import simulation
from cluster.machine.pass_result import Event, PassResult, PassStarted
from cluster.machine.run_end import CONVERGED_PASSES, RunEnd
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
from cluster.spec.statistics import NODE_NAMES
from cluster.spec.topology import fully_connected

SPEC = SimulationSpec(
    machine=MachineSpec(2, 400, fully_connected(2)),
    ksm=KsmSpec(pages_to_scan=100, sleep_millisecs=20),
    processes=(ProcessSpec("a", 2, (RegionSpec("r", 100, ContentModel.REPLICATED),)),),
    # Time is sleep alone: 24 ms after each of two batches, and once more where a pass ends.
    cost=CostSpec(**{term.name: 0.0 for term in fields(CostSpec)}),
)
PASS = 0.072


def run(**changes: Any) -> list[PassResult]:
    return list(run_passes(replace(SPEC, **changes), INLINE))


def with_write(write: WriteSpec) -> tuple[ProcessSpec, ...]:
    (kind,) = SPEC.processes
    return (replace(kind, regions=(replace(kind.regions[0], writes=(write,)),)),)


@pytest.mark.parametrize(("seconds", "passes"), [(0.001, 1), (PASS, 1), (PASS + 0.001, 2), (0.7, 10)])
def test_a_run_ends_with_the_pass_in_which_the_time_is_reached(seconds: float, passes: int) -> None:
    results = run(passes=None, seconds=seconds)
    assert len(results) == passes
    assert results[-1].simulated_seconds >= seconds - 1e-9
    assert [result.census is not None for result in results] == [False] * (passes - 1) + [True]


def test_passes_and_seconds_whichever_is_first() -> None:
    assert len(run(passes=3, seconds=100.0)) == 3
    assert len(run(passes=30, seconds=2 * PASS)) == 2


def test_a_time_that_is_never_reached() -> None:
    with pytest.raises(SimulationError, match="a pass takes no simulated time"):
        run(passes=None, seconds=1.0, ksm=replace(SPEC.ksm, sleep_millisecs=0))


def test_a_run_converges_when_all_has_merged() -> None:
    """Checksums in the first pass, merges in the second: from then on all is as it is."""
    results = run(passes=100, tolerance=0.001)
    assert len(results) == 1 + CONVERGED_PASSES
    assert [int(r.nodes["pages_sharing"].sum()) for r in results] == [0] + [100] * CONVERGED_PASSES


def test_a_tolerance_that_takes_in_the_merging() -> None:
    assert len(run(passes=100, tolerance=1.0)) == CONVERGED_PASSES


def test_no_run_converges_before_the_writes_that_are_to_come() -> None:
    begun = run(passes=100, tolerance=0.001, processes=with_write(WriteSpec(1e9, start=1.0, stop=1.5)))
    assert sum(result.simulated_seconds >= 1.5 for result in begun) >= CONVERGED_PASSES
    assert len(begun) < 100


def test_a_cycle_of_writes_is_covered() -> None:
    """Pages are written for 0.1 s every 2 s, and merge again in the pause of more than ten passes."""
    write = WriteSpec(1e9, period=2.0, duty=0.05, content=Rewrite.ORIGINAL)
    assert len(run(passes=100, tolerance=0.001, processes=with_write(write))) == 100


def results_of(figures: Sequence[int]) -> list[PassResult]:
    """A pass a second, with so many pages volatile out of 1000."""
    columns = [
        {
            name: np.array([{"pages_mapped": 1000, "pages_volatile": figure}.get(name, 0)])
            for name in NODE_NAMES
        }
        for figure in figures
    ]
    return [PassResult(n, nodes, n, float(n), 1, 1, 0.0) for n, nodes in enumerate(columns, 1)]


def test_a_drift_is_no_standstill() -> None:
    """Each pass differs little from the last; the ten together do not."""
    end = RunEnd(replace(SPEC, passes=100, tolerance=0.01))
    assert not any(end.is_last(result) for result in results_of(range(0, 180, 2)))
    end = RunEnd(replace(SPEC, passes=100, tolerance=0.02))
    assert [end.is_last(result) for result in results_of(range(0, 20, 2))] == [False] * 9 + [True]


def test_the_end_is_announced_only_if_it_is_known() -> None:
    def totals(**changes: Any) -> set[int | None]:
        events: list[Event] = []
        list(run_passes(replace(SPEC, **changes), INLINE, on_event=events.append))
        return {event.total for event in events if isinstance(event, PassStarted)}

    assert totals(passes=2) == {2}
    assert totals(passes=None, seconds=2 * PASS) == {None}
    assert totals(passes=20, tolerance=0.1) == {None}


def test_a_time_that_is_not_reached_ends_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MOST_PASSES", 3)
    with pytest.raises(SimulationError, match=r"simulation\.seconds: the run has not ended after 3 passes"):
        list(run_passes(replace(SPEC, passes=None, seconds=4 * PASS), INLINE))
    assert len(list(run_passes(replace(SPEC, passes=None, seconds=2.5 * PASS), INLINE))) == 3
