"""Rows are sorted as by numpy's own sorts, whatever bits tell them apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.columns import order_by

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
