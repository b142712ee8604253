"""Lists in arrays do what lists in Python do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cluster.compaction.pages.ordered_lists import OrderedLists

LISTS, PAGES = 3, 400
numbers = st.integers(0, LISTS - 1)


class Lists(RuleBasedStateMachine):
    """The same steps on both."""

    @initialize(sizes=st.lists(st.integers(0, 60), min_size=LISTS, max_size=LISTS), data=st.data())
    def fill(self, sizes: list[int], data: st.DataObject) -> None:
        pages = data.draw(st.permutations(range(PAGES)))
        ends = np.cumsum([0, *sizes]).tolist()
        self.expected = [pages[low:high] for low, high in pairwise(ends)]
        self.unlisted = pages[ends[-1] :]
        self.lists = OrderedLists(LISTS, PAGES)
        self.lists.fill([np.array(pages, np.int64) for pages in self.expected])

    @rule(number=numbers, count=st.integers(0, 40), at_tail=st.booleans())
    def join(self, number: int, count: int, at_tail: bool) -> None:
        joining, self.unlisted = self.unlisted[:count], self.unlisted[count:]
        add = self.lists.join_tail if at_tail else self.lists.join_head
        add(number, np.array(joining, np.int64))
        for page in joining:
            self.expected[number].insert(len(self.expected[number]) if at_tail else 0, page)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        listed = [page for pages in self.expected for page in pages]
        leaving = data.draw(st.lists(st.sampled_from(listed), unique=True)) if listed else []
        self.lists.leave(np.array(leaving, np.int64))
        self.expected = [[page for page in pages if page not in leaving] for pages in self.expected]
        self.unlisted = [*self.unlisted, *leaving]

    @precondition(lambda self: any(self.expected))
    @rule(data=st.data(), times=st.integers(1, 5))
    def turn(self, data: st.DataObject, times: int) -> None:
        number = data.draw(st.sampled_from([n for n in range(LISTS) if self.expected[n]]))
        for _ in range(times):
            pages = self.expected[number]
            place = data.draw(st.integers(0, len(pages) - 1))
            self.lists.turn(number, pages[place])
            self.expected[number] = pages[place:] + pages[:place]

    @rule(number=numbers, most=st.integers(1, 70))
    def look(self, number: int, most: int) -> None:
        assert self.lists.head(number, most).tolist() == self.expected[number][:most]
        assert self.lists.tail(number, most).tolist() == self.expected[number][::-1][:most]

    def teardown(self) -> None:
        if hasattr(self, "expected"):
            assert [self.lists.pages(n).tolist() for n in range(LISTS)] == self.expected
            assert self.lists.counts == [len(pages) for pages in self.expected]


TestLists = Lists.TestCase


@given(st.lists(st.integers(1, 99), min_size=1, max_size=80))
def test_a_list_that_turns_for_long_keeps_its_room(steps: list[int]) -> None:
    lists = OrderedLists(1, 100)
    lists.fill([np.arange(100)])
    expected = list(range(100))
    for step in steps:
        lists.turn(0, expected[step])
        expected = expected[step:] + expected[:step]
    assert lists.pages(0).tolist() == expected
    assert len(lists._items) < 400
