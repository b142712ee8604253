"""The headline by hand: passes of unequal length, one of them on both sides of the middle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmcluster.report.console import as_text
from ksmcluster.report.simulation_report import report
from ksmcluster.results.headline import headline, last_half
from ksmcluster.results.result import Result


def test_a_pass_weighs_as_much_as_it_has_of_the_last_half() -> None:
    # Passes of 2, 1, 4 and 3 s; the last half is from 5 s to 10 s.
    assert last_half(np.array([2.0, 3.0, 7.0, 10.0])).tolist() == [0.0, 0.0, 2.0, 3.0]


def test_mean_and_spread_leave_the_first_half_out() -> None:
    saved, after = np.array([0, 900, 100, 200]), np.array([1000, 100, 900, 600])
    found = headline([2.0, 3.0, 7.0, 10.0], saved, after)
    assert found["saved_bytes_mean"] == (2 * 100 + 3 * 200) / 5
    assert (found["saved_bytes_min"], found["saved_bytes_max"]) == (100, 200)
    assert found["saved_fraction_mean"] == pytest.approx(160 / ((2 * 1000 + 3 * 800) / 5))


@given(st.integers(0, 2**50), st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_the_mean_of_equal_values_is_that_value(saved: int, took: list[float]) -> None:
    """However long the passes are: else runs that save the same would differ by a rounding error."""
    passes = len(took)
    found = headline(np.cumsum(took).tolist(), np.full(passes, saved), np.full(passes, 7))
    assert found["saved_bytes_mean"] == found["saved_bytes_min"] == found["saved_bytes_max"] == saved


def test_one_pass_is_all_there_is() -> None:
    found = headline([4.0], np.array([50]), np.array([150]))
    assert found == {
        "saved_bytes_mean": 50,
        "saved_bytes_min": 50,
        "saved_bytes_max": 50,
        "saved_fraction_mean": 0.25,
    }


def test_without_time_the_last_pass_counts() -> None:
    assert headline([0.0, 0.0], np.array([7, 9]), np.array([0, 0]))["saved_bytes_mean"] == 9


def test_nothing_in_memory_saves_nothing() -> None:
    assert headline([1.0], np.array([0]), np.array([0]))["saved_fraction_mean"] == 0.0


def test_summary_and_report_give_the_headline_first_and_the_end_beside_it(result: Result) -> None:
    # 540 pages more are saved after each of four passes of 1.5 s; the last two are the last half.
    derived = result.summary["derived"]
    assert derived["saved_bytes_mean"] == 3.5 * 540 * 4096
    assert (derived["saved_bytes_min"], derived["saved_bytes_max"]) == (3 * 540 * 4096, 4 * 540 * 4096)
    memory = as_text(report(result)).split("Memory\n")[1].split("\n\n")[0].splitlines()
    assert memory[0].split()[:3] == ["saved", "7.4", "MiB"]
    assert memory[2].strip() == "from 6.3 MiB to 8.4 MiB"
    assert memory[5].split()[:6] == ["end:", "saved", "8.4", "MiB", "37.5", "%"]
