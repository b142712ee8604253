"""When the moments of a snapshot are replayed, and what is written between them."""

from __future__ import annotations

import pytest

from cluster.spec.captured_pages import CapturedPages, ReplayStep


def captured(*moments: float, interval: float | None = None) -> CapturedPages:
    return CapturedPages((), moments, interval)


def steps(pages: CapturedPages, replay_interval: float | None = None) -> list[tuple[float, int, bool]]:
    return [(round(time, 9), moment, between) for time, moment, between in pages.steps(replay_interval)]


def test_moments_are_replayed_as_they_were_captured() -> None:
    expected = [(0.0, 0, False), (1.0, 1, False), (5.0, 2, False)]
    assert steps(captured(0.0, 1.0, 5.0)) == expected
    assert steps(captured(0.0, 1.0, 5.0), 0.5) == [(0.0, 0, False), (0.5, 1, False), (1.0, 2, False)]


def test_pages_are_written_in_gaps_as_often_as_the_interval_fits_in() -> None:
    """A moment may be late by a tenth of the interval."""
    pages = captured(0.0, 1.1, 2.3, 5.3, interval=1.0)
    assert steps(pages) == [
        *((0.0, 0, False), (1.1, 1, False)),
        *((1.7, 2, True), (2.3, 2, False)),
        *((3.3, 3, True), (4.3, 3, True), (5.3, 3, False)),
    ]
    assert steps(pages, 1.0) == [(float(i), i, False) for i in range(4)]


@pytest.mark.parametrize("interval", [None, 0.5, 7.0])
def test_times_ascend_and_each_moment_is_replayed_once(interval: float | None) -> None:
    found = captured(0.0, 0.3, 4.0, 4.5, 9.75, interval=interval).steps(None)
    times = [step.time for step in found]
    assert times == sorted(set(times))
    assert [step for step in found if not step.between] == [
        ReplayStep(time, moment) for moment, time in enumerate((0.0, 0.3, 4.0, 4.5, 9.75))
    ]
