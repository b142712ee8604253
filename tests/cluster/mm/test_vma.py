"""Virtual pages are translated into slots and back, as each VMA has it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays.words import VPN_BITS, mm_id
from cluster.mm.page_table import PageTable
from cluster.mm.vma import AddressSpaces, Mm
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import PolicyMode, PolicySpec

_POLICY = PolicySpec(PolicyMode.PREFERRED, (0,))
#: Processes, and pages before and in each of their VMAs.
_LAYOUTS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=4), max_size=3)


@given(_LAYOUTS, st.randoms(use_true_random=False))
def test_slots_of_item_keys(layout: list[list[tuple[int, int]]], random: Random) -> None:
    spaces = AddressSpaces(PageTable())
    expected: dict[int, int] = {}
    for number, vmas in enumerate(layout):
        mm, page = Mm(mm_id(2, number)), 7
        spaces.add(mm)
        for gap, pages in vmas:
            expected |= {mm.id << VPN_BITS | page + i: -1 for i in range(gap)}
            page += gap
            vma = spaces.mmap(mm, page, pages, _POLICY, mergeable=number != 1)
            expected |= {mm.id << VPN_BITS | page + i: vma.slot0 + i for i in range(pages)}
            page += pages
        expected[mm.id << VPN_BITS | page] = -1
    keys = sorted(expected)
    ascending = np.array(keys, np.int64)
    assert spaces.index.slots(ascending).tolist() == [expected[key] for key in keys]
    # So many that VMAs are looked for among them instead.
    many, each = np.repeat(ascending, 1 << 12), [expected[key] for key in keys]
    assert np.array_equal(spaces.index.slots(many), np.repeat(np.array(each, np.int64), 1 << 12))
    random.shuffle(keys)
    assert spaces.index.slots(np.array(keys, np.int64)).tolist() == [expected[key] for key in keys]
    mapped = np.array([key for key in sorted(keys) if expected[key] >= 0], np.int64)
    slots = np.sort(spaces.index.slots(mapped))
    found, mergeable = spaces.index.along(slots)
    assert spaces.index.slots(found).tolist() == slots.tolist()
    assert mergeable.tolist() == [key >> VPN_BITS != mm_id(2, 1) for key in found.tolist()]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=12))
def test_vmas_ascend_and_never_overlap(wanted: list[tuple[int, int]]) -> None:
    spaces, mm = AddressSpaces(PageTable()), Mm(mm_id(0, 0))
    spaces.mms[mm.id] = mm
    taken: set[int] = set()
    for start, pages in wanted:
        pages_wanted = set(range(start, start + pages))
        if pages_wanted & taken:
            with pytest.raises(SimulationError, match="overlap"):
                spaces.mmap(mm, start, pages, _POLICY, mergeable=True)
        else:
            spaces.mmap(mm, start, pages, _POLICY, mergeable=True)
            taken |= pages_wanted
    assert [vma.start for vma in mm.vmas] == sorted(vma.start for vma in mm.vmas)
    assert {page for vma in mm.vmas for page in range(vma.start, vma.end)} == taken
