"""Ages of pages that never merge: by hand, and from one pass to the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.mm.skip_ages import CYCLE, OLDEST, SkipAges

#: Passes, from 0, in which ksmd visits a page that never merges; it skips the page in all others.
VISITED = {0, 1, 2, 3, 5, 8, 13, 22, 31, 40}


def pages(visits: list[int]) -> SkipAges:
    ages = SkipAges()
    ages.keep(len(visits))
    ages.set_visits(np.arange(len(visits)), np.array(visits, np.int64))
    return ages


def skipped(ages: SkipAges) -> list[bool]:
    return ages.visit(slice(0, len(ages)), np.ones(len(ages), np.bool_)).tolist()


def test_a_page_set_to_an_age_is_visited_when_it_would_have_been() -> None:
    assert skipped(pages(list(range(45)))) == [n not in VISITED for n in range(45)]


def test_a_new_page_is_visited_in_these_passes() -> None:
    page = pages([0])
    assert [skipped(page) for _ in range(45)] == [[n not in VISITED] for n in range(45)]


@given(st.integers(0, 2000))
def test_one_pass_more_is_one_visit_more(visits: int) -> None:
    before, after = pages([visits]), pages([visits + 1])
    skipped(before)
    assert [skipped(before) for _ in range(20)] == [skipped(after) for _ in range(20)]


def test_the_oldest_are_visited_once_in_nine_passes_whatever_comes() -> None:
    """A page of each phase: one is visited in each pass, and none twice in nine."""
    ages = pages([OLDEST + phase for phase in range(CYCLE)])
    visited = [[i for i, skip in enumerate(skipped(ages)) if not skip] for _ in range(3 * CYCLE)]
    assert all(len(one) == 1 for one in visited)
    assert sorted(one[0] for one in visited[:CYCLE]) == list(range(CYCLE))
    assert visited[:CYCLE] == visited[CYCLE : 2 * CYCLE] == visited[2 * CYCLE :]


@pytest.mark.parametrize("passes", [1, 9, 100])
def test_the_distribution_of_ages_is_that_of_one_pass_later(passes: int) -> None:
    rng = np.random.default_rng(1)
    ages = pages((OLDEST + rng.integers(0, CYCLE, 90_000)).tolist())
    for _ in range(passes):
        share = 1 - np.mean(skipped(ages))
        assert share == pytest.approx(1 / CYCLE, abs=0.005)
