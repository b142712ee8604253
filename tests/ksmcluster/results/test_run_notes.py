"""Notes on runs whose numbers would mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ksmcluster import simulate
from ksmcluster.config import Overrides, load
from ksmcluster.results.run_notes import period_of


def notes_of(source: Any, *settings: str, **changes: Any) -> list[str]:
    result = simulate(load(source, Overrides(settings=settings, **changes)), engine="inline")
    notes: list[str] = result.summary["notes"]
    # Text breaks lines anywhere.
    shown = " ".join(str(result).split())
    assert all(" ".join(note.split()) in shown for note in notes)
    return notes


SMALL: dict[str, Any] = {
    "machine": {"nodes": 2, "memory_per_node": "1000 pages"},
    "process": [
        {
            "name": "a",
            "per_node": 1,
            "region": [
                {
                    "name": "r",
                    "size": "200 pages",
                    "model": "replicated",
                    "write": [{"rate": 5.0, "start": 3.0}],
                }
            ],
        }
    ],
}


def test_a_run_that_holds_all_the_scenario_has_needs_no_note() -> None:
    assert notes_of(SMALL, seconds=4.0) == []
    assert notes_of("tiny") == []


def test_a_run_that_ends_before_pages_merge() -> None:
    (note,) = notes_of("tiny", passes=1)
    assert note.startswith("the run ended with ksmd's first pass, which took ")
    assert notes_of("tiny", passes=2) == []


def test_writes_after_the_end() -> None:
    (note,) = notes_of(SMALL, passes=3)
    assert note.startswith("a, r: writes begin at 3.0 s, after the ")
    assert notes_of(SMALL, "process[0].region[0].write[0].rate=0", passes=3) == []


def test_one_ksmd_for_each_node_is_compared_at_equal_time() -> None:
    settings = ("ksm.merge_across_nodes=0", "ksm.threads=per-node", "process[0].region[0].write[0].start=0")
    (note,) = notes_of(SMALL, *settings, passes=3)
    assert note.startswith("with one ksmd per node, 3 passes took ")
    assert notes_of(SMALL, *settings, seconds=1.0) == []


def test_a_run_that_has_not_converged() -> None:
    (note,) = notes_of(
        SMALL, "simulation.most_passes=4", "process[0].region[0].write[0].start=0", until="converged"
    )
    assert note.startswith("the run has not converged within 4 passes: ")


def test_a_relocation_that_is_not_reached() -> None:
    settings = ("migration.relocate=[{kind='even-out', after_pass=90}]",)
    notes = notes_of("ksm-compaction", *settings, "machine.nodes=2", "machine.topology=ring", seconds=0.5)
    assert "migration.relocate[0]: nothing is moved, because the run ends before pass 90" in notes


def test_smart_scan_makes_the_final_state_alternate() -> None:
    """It leaves out pages that failed to merge, all at once here; no tree has them in such a pass."""
    state = {"name": "r", "size": "300 pages", "model": "unique"}
    data = SMALL | {"process": [{"name": "a", "per_node": 1, "region": [state]}]}
    (note,) = notes_of(data, passes=40)
    assert "pages_volatile: the final value depends on the pass" in note
    assert notes_of(data, "ksm.smart_scan=0", passes=40) == []


def test_knobs_left_out_are_noted() -> None:
    (note,) = notes_of("tiny", "ksm.kernel=4.8", "ksm.run=1") or [""]
    assert "is ignored" in note


@pytest.mark.parametrize(
    ("values", "period"),
    [
        ([0, 50, 100, 100, 100, 100], 0),
        ([0, 100, 0, 100], 2),
        ([5, 5, 5, 100, 0, 100, 0], 2),
        ([0, 0, 90, 0, 0, 90], 3),
        ([0, 10, 20, 30, 40, 50, 60], 0),
        ([100, 60, 101, 61], 2),
        ([100, 99, 100, 99], 0),
        ([0, 100], 0),
        ([100, 80, 50, 40, 30, 20], 0),
    ],
)
def test_the_period_of_a_figure(values: list[int], period: int) -> None:
    assert period_of(np.array(values), swing=5) == period
