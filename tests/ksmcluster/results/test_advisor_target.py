"""The note about a target that the advisor misses."""

from __future__ import annotations

from itertools import accumulate

import pytest

import ksmcluster
from ksmcluster.config.ksmd import KsmConfig
from ksmcluster.results.advisor_target import notes

KSM = KsmConfig(advisor_mode="scan-time", advisor_target_scan_time=100)


def note(took: list[float], ksm: KsmConfig = KSM, windows: int = 1) -> str:
    return "\n".join(notes(ksm, list(accumulate(took)), [windows] * len(took)))


@pytest.mark.parametrize("took", [[100, 100, 100], [1, 300, 90, 110, 120, 100], [80], [120]])
def test_a_target_that_is_met_needs_no_note(took: list[float]) -> None:
    assert note(took) == ""


def test_passes_that_are_too_short() -> None:
    # The last half begins in the fourth pass.
    found = note([100, 4, 4, 30, 30, 60])
    assert "target of 100 s" in found
    assert "40 s on average (30 s to 60 s); its rule gives ksmd at least 10 % of a CPU." in found


def test_passes_that_are_too_long() -> None:
    assert "at most 30,000 pages and 70 % of a CPU." in note([200, 200])


def test_without_the_advisor_or_ksmd_there_is_no_target() -> None:
    assert note([1, 1], KsmConfig()) == ""
    assert note([1, 1], windows=0) == ""


def test_a_result_has_the_note() -> None:
    changes = ksmcluster.Overrides(settings=("ksm.advisor_mode=scan-time",))
    result = ksmcluster.simulate(ksmcluster.load("tiny", changes), engine="inline")
    assert [line.startswith("The advisor's target of 200 s") for line in result.summary["notes"]] == [True]
    assert "out of reach" in str(result)
