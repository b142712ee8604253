"""Narrow columns hold what the wide ones held, wherever they are cut, in fewer bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays.words import Array
from cluster.wire.narrow import Halves, Offsets, Repeated, Steps, narrowed, widened

ROWS = 256
TWO_RUNS = np.concatenate([np.arange(5, 5 + 128), (1 << 40) - np.arange(128)[::-1]])


@pytest.mark.parametrize(
    ("column", "form", "bytes_of_each"),
    [
        (TWO_RUNS, Steps, 2),
        (np.arange(ROWS) * 65535, Steps, 2),
        (np.arange(ROWS)[::-1] - 7, Offsets, 1),
        (np.arange(ROWS)[::-1] * 256, Offsets, 2),
        (np.arange(ROWS) * 65536, Offsets, 4),
        (np.arange(ROWS)[::-1] << 33, Halves, 6),
        ((np.arange(ROWS)[::-1] << 31) - (1 << 40), Halves, 5),
        (np.arange(ROWS)[::-1] << 55, np.ndarray, 8),
        (np.full(ROWS, 9, np.uint8), Repeated, 0),
        (np.arange(ROWS, dtype=np.uint8), np.ndarray, 1),
        (np.full(ROWS, 9, np.uint64), np.ndarray, 8),
        (np.zeros((ROWS, 2), np.uint8), np.ndarray, 2),
    ],
)
def test_the_form_of_a_column(column: Array, form: type, bytes_of_each: int) -> None:
    narrow = narrowed(column, np.array([0, ROWS]))
    assert type(narrow) is form
    assert narrow.nbytes == bytes_of_each * ROWS
    back = widened([narrow])
    assert back.dtype == column.dtype
    assert back.tolist() == column.tolist()
    assert back.flags.writeable
    assert not np.shares_memory(back, column)


def test_runs_begin_at_jumps_and_where_the_column_may_be_cut() -> None:
    narrow = narrowed(TWO_RUNS, np.array([0, 64, ROWS]))
    assert isinstance(narrow, Steps)
    assert narrow.starts == [0, 64, 128]
    assert narrow.firsts == [5, 5 + 64, (1 << 40) - 127]


COLUMNS = st.builds(
    lambda seed, steps, jumps, spread: _column(seed, steps, jumps, spread),
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 300, 70_000]),
    st.sampled_from([0, 0.01, 0.5]),
    st.sampled_from([1, 200, 1 << 20, 1 << 40, 1 << 62]),
)


def _column(seed: int, steps: int, jumps: float, spread: int) -> Array:
    """Values that ascend by small steps, with jumps up or down by up to `spread`."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.integers(0, steps + 1, ROWS))
    at = np.flatnonzero(rng.random(ROWS) < jumps)
    values += np.repeat(rng.integers(-spread, spread, len(at) + 1), np.diff([0, *at.tolist(), ROWS]))
    return values


@given(st.lists(COLUMNS, min_size=1, max_size=3), st.sets(st.integers(1, ROWS - 1), max_size=4), st.data())
def test_parts_of_several_columns_are_joined_in_order(
    columns: list[Array], cuts: set[int], data: st.DataObject
) -> None:
    """Some columns are narrow, others not."""
    bounds = (0, *sorted(cuts), ROWS)
    parts, wanted = [], []
    for column in columns:
        form = narrowed(column, np.array(bounds)) if data.draw(st.booleans()) else column
        for low, high in pairwise(bounds):
            if data.draw(st.booleans()):
                parts.append(form[low:high] if isinstance(form, np.ndarray) else form.part(low, high))
                wanted.append(column[low:high])
    if parts:
        assert np.array_equal(widened(parts), np.concatenate(wanted))


def test_parts_of_bytes() -> None:
    parts = [
        np.array([1, 2], np.uint8),
        Repeated(np.uint8(3), 2),
        Repeated(np.uint8(4), 0),
        np.zeros(1, np.uint8),
    ]
    back = widened(parts)
    assert (back.dtype, back.tolist()) == (np.uint8, [1, 2, 3, 3, 0])
