"""What nodes know of when huge pages are split, told in changes."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.mm.huge.split_times import NEVER, SplitTimes
from cluster.wire.window import END


def array(*values: int) -> I64:
    return np.array(values, np.int64)


def test_changes_make_one_owners_times_known_elsewhere() -> None:
    """Huge pages 3, 5 and 9; then 5 is tried earlier, 9 not any more, and all tries of 7 fail."""
    owner, other = SplitTimes(), SplitTimes()
    other.update(array(4), array(40), array(0))
    other.update(*owner.change_to(array(3, 5, 9), array(30, 50, 90), array(0, 1, 0)))
    assert [other.get(block) for block in (3, 4, 5, 9)] == [(30, 0), (40, 0), (50, 1), (90, 0)]

    changed = owner.change_to(array(3, 5, 7), array(30, 20, END), array(0, 0, 0))
    assert [column.tolist() for column in changed] == [[5, 7, 9], [20, END, -1], [0, 0, 0]]
    other.update(*changed)
    assert [other.get(block) for block in (3, 4, 5, 7, 9)] == [(30, 0), (40, 0), (20, 0), NEVER, None]
    assert [column.tolist() for column in other.split()] == [[3, 4, 5], [30, 40, 20]]
    assert other.positions(array(9, 5, 7, 5)).tolist() == [END, 20, END, 20]


def test_nothing_has_changed() -> None:
    owner = SplitTimes()
    times = array(3, 5), array(30, 50), array(0, 1)
    owner.change_to(*times)
    assert [len(column) for column in owner.change_to(*times)] == [0, 0, 0]


def test_tries_before_and_at_the_split() -> None:
    times = SplitTimes()
    times.update(array(5, 3), array(50, 30), array(1, 0))
    before, first = times.compare(array(3, 3, 5, 5, 8), array(29, 30, 50, 50, 1), array(0, 0, 0, 1, 0))
    assert before.tolist() == [True, False, True, False, False]
    assert first.tolist() == [False, True, False, True, False]
    times.clear()
    assert times.get(3) is None
