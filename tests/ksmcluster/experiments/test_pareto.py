"""Pareto fronts worked out by hand, and what holds for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmcluster.experiments.figures import Figures
from ksmcluster.experiments.sweeps.axes import SweepPoint
from ksmcluster.experiments.sweeps.outcomes import Findings, Outcome, choose
from ksmcluster.experiments.sweeps.pareto import (
    Limit,
    Objective,
    best,
    front,
    named,
    parse_limits,
    parse_objectives,
)
from ksmcluster.experiments.sweeps.sweep_report import report
from ksmcluster.report.console import as_text
from ksmcluster.system.errors import UserError

#: Saved, and CPU time with the sign turned: 3 is worse than 2 in both, 5 as good as 4.
POINTS = {
    1: (10.0, -1.0),
    2: (30.0, -2.0),
    3: (20.0, -3.0),
    4: (40.0, -9.0),
    5: (40.0, -9.0),
    6: (10.0, -2.0),
}


def test_a_front_by_hand() -> None:
    assert front(POINTS) == [1, 2, 4, 5]
    assert front({}) == []
    assert front({7: (1.0,)}) == [7]


def test_the_best_by_hand() -> None:
    assert best(POINTS) == 4
    assert best({n: POINTS[n] for n in (1, 2, 3, 6)}) == 2
    assert best({}) is None


def test_within_one_percent_the_next_objective_decides() -> None:
    assert best({1: (1000.0, -9.0), 2: (995.0, -1.0), 3: (989.0, 0.0)}) == 2
    # For objectives that are to be small as well.
    assert best({1: (-100.0, 1.0), 2: (-100.5, 2.0), 3: (-102.0, 3.0)}) == 2


def test_an_objective_that_hardly_differs_does_not_count() -> None:
    """Point 2 saves 0.5 % less at half of the CPU time; by 2 % less, it would be a matter of taste."""
    wanted = parse_objectives("saved:max,cpu:min")
    for saved, on_front, recommended in ((995.0, (2,), 2), (980.0, (1, 2), 1)):
        figures = {1: {"saved": 1000.0, "cpu": 8.0}, 2: {"saved": saved, "cpu": 4.0}}
        outcomes = [Outcome(SweepPoint(n, {}), means, {}, 1, ()) for n, means in figures.items()]
        choice = choose(outcomes, wanted, ())
        assert (choice.front, choice.recommended) == (on_front, recommended)
        assert choice.objectives == wanted
        assert choice.differing == wanted[-len(on_front) :]


def test_a_figure_that_a_point_lacks_is_the_worst_and_the_first_must_be_there() -> None:
    """Where nothing merges, nothing is remote; and a run may have no figure at all."""
    wanted = parse_objectives("saved:max,remote:min")
    figures: dict[int, Figures] = {
        1: {"saved": 0.0, "remote": None},
        2: {"saved": 9.0, "remote": 0.5},
        3: {"saved": 9.0, "remote": None},
        4: {"saved": None, "remote": 0.0},
        5: {"saved": 9.0, "remote": 0.4},
    }
    outcomes = [Outcome(SweepPoint(n, {}), means, {}, 1, ()) for n, means in figures.items()]
    choice = choose(outcomes, wanted, ())
    assert (choice.front, choice.recommended, choice.left_out) == ((5,), 5, (4,))
    assert choice.differing == wanted
    alone = choose(outcomes[:1], wanted, ())
    assert (alone.front, alone.recommended, alone.left_out) == ((1,), 1, ())
    shown = as_text(report(Findings(tuple(outcomes), choice, 1, 0)))
    assert "Not compared: point 4, which has no saved." in shown


scores = st.integers(-3, 3).map(float)
points = st.dictionaries(st.integers(1, 30), st.tuples(scores, scores, scores), max_size=12)


@given(points)
def test_the_front_is_what_no_point_dominates(found: dict[int, tuple[float, ...]]) -> None:
    """By another way: sort so that dominating points come first, and keep what none of the kept dominates."""
    kept: list[int] = []
    for number in sorted(found, key=lambda n: found[n], reverse=True):
        mine = found[number]
        if not any(
            found[k] != mine and min(a - b for a, b in zip(found[k], mine, strict=True)) >= 0 for k in kept
        ):
            kept.append(number)
    assert sorted(front(found)) == sorted(kept)


@given(points.filter(bool))
def test_the_best_is_on_the_front_and_near_the_top(found: dict[int, tuple[float, ...]]) -> None:
    number = best(found)
    assert number in front(found)
    top = max(score[0] for score in found.values())
    assert found[number][0] >= top - 0.01 * abs(top)  # type: ignore[index]


def test_texts() -> None:
    assert parse_objectives("saved_bytes:max, ksmd_cpu_seconds:min") == (
        Objective("saved_bytes", True),
        Objective("ksmd_cpu_seconds", False),
    )
    (limit,) = parse_limits(["ksmd_cpu_percent<=5"])
    assert limit == Limit("ksmd_cpu_percent", "<=", 5.0)
    assert [limit.is_kept(value) for value in (5, 5.1, None)] == [True, False, False]
    assert parse_limits(["a < 1e3"])[0].is_kept(999)


@pytest.mark.parametrize("text", ["saved_bytes", "saved_bytes:most", ":max", "a:max,,b:min", ""])
def test_wrong_objectives(text: str) -> None:
    with pytest.raises(UserError, match=r"--objectives .*: not of the form FIGURE:max"):
        parse_objectives(text)


@pytest.mark.parametrize("text", ["a=5", "a<=", "<=5", "a<=five", "a<=5 %"])
def test_wrong_limits(text: str) -> None:
    with pytest.raises(UserError, match=r"--limit .*: not of the form FIGURE<=NUMBER"):
        parse_limits([text])


def test_names_may_be_short() -> None:
    names = ["saved_bytes", "ksm_mappings_remote_fraction", "free.before", "obtained.before"]
    objectives, limits = named(
        parse_objectives("remote_fraction:min"), parse_limits(["saved_bytes>0"]), names
    )
    assert objectives == (Objective("ksm_mappings_remote_fraction", False),)
    assert limits == (Limit("saved_bytes", ">", 0.0),)
    with pytest.raises(UserError, match=r"before could be free\.before or obtained\.before"):
        named(parse_objectives("before:max"), (), names)
    with pytest.raises(UserError, match='no figure saved_byte; did you mean "saved_bytes"'):
        named((), parse_limits(["saved_byte<1"]), names)
