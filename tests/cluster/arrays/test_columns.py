"""Rows are sorted and chosen as numpy's own, slower ways have it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays.columns import (
    distinct_below,
    find_unsorted,
    is_in_runs,
    order_by,
    rows_where,
    rows_with,
    run_of,
    taken,
)

#: Few values, which differ in high bits, in low bits, or in both.
_WORDS = st.sampled_from(
    [0, 1, 2, 1 << 40, (1 << 40) + 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 64) - 1]
)


@given(st.lists(st.tuples(_WORDS, st.integers(-3, 3)), max_size=40))
def test_order_by_two_columns(rows: list[tuple[int, int]]) -> None:
    first = np.array([word for word, _ in rows], np.uint64)
    then = np.array([value for _, value in rows], np.int64)
    order, found = order_by(first, then)
    assert order.tolist() == np.lexsort((then, first)).tolist()
    assert found.tolist() == first[order].tolist()


@given(st.lists(st.integers(0, 9), max_size=12))
def test_rows_that_lie_side_by_side_are_a_slice(numbers: list[int]) -> None:
    column, rows = np.arange(100, 110), np.array(numbers, np.int64)
    run = run_of(rows)
    assert isinstance(run, slice) == (
        len(numbers) > 0 and numbers == list(range(numbers[0], numbers[-1] + 1))
    )
    copy = taken(column, run)
    assert copy.tolist() == column[rows].tolist()
    copy[:] = 0
    assert column.tolist() == list(range(100, 110))


@given(st.lists(st.booleans(), max_size=12))
def test_chosen_rows(chosen: list[bool]) -> None:
    column, mask = np.arange(len(chosen)), np.array(chosen, np.bool_)
    assert column[rows_where(mask)].tolist() == column[mask].tolist()


@given(st.lists(st.integers(0, 15), max_size=12), st.integers(1, 15))
def test_rows_with_flags(flags: list[int], some: int) -> None:
    assert rows_with(np.array(flags, np.uint16), some).tolist() == [
        row for row, flag in enumerate(flags) if flag & some
    ]


@given(st.lists(st.integers(0, 99), max_size=12), st.sampled_from([100, 100_000]))
def test_distinct_numbers_below_a_limit(numbers: list[int], limit: int) -> None:
    assert distinct_below(limit, np.array(numbers, np.int64)).tolist() == sorted(set(numbers))


@given(st.lists(_WORDS, max_size=12), st.lists(_WORDS, max_size=12))
def test_search_in_unsorted_keys(keys: list[int], wanted: list[int]) -> None:
    found = find_unsorted(np.array(keys, np.uint64), np.array(wanted, np.uint64)).tolist()
    assert [row >= 0 for row in found] == [value in keys for value in wanted]
    assert all(keys[row] == value for row, value in zip(found, wanted, strict=True) if row >= 0)


@given(st.lists(st.integers(0, 5), max_size=12), st.sets(st.integers(0, 5)))
def test_which_values_of_runs_are_known(values: list[int], known: set[int]) -> None:
    found = is_in_runs(np.array(values, np.int64), np.array(sorted(known), np.int64))
    assert found.tolist() == [value in known for value in values]
