"""Frames with few and with many mappings, and frames that are used again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.mm.frames import Frames
from cluster.spec.scenario import KsmSpec, MachineSpec, SimulationSpec
from cluster.spec.topology import from_rows

_COUNT = 4

_gets = st.lists(
    st.tuples(st.integers(0, _COUNT - 1), st.sampled_from([1, 15, 255, 20_000, 40_000])), max_size=4
)


def mapped(pfns: int) -> Frames:
    frames = Frames(_COUNT, with_bytes=False)
    frames.map_anon(frames.alloc(pfns), 0)
    return frames


@given(st.lists(_gets, max_size=6))
def test_mappings_are_counted_however_many(batches: list[list[tuple[int, int]]]) -> None:
    frames, expected = mapped(_COUNT), Counter(range(_COUNT))
    for batch in batches:
        rows = np.array(batch, np.int64).reshape(-1, 2)
        frames.get(rows[:, 0], rows[:, 1])
        for pfn, count in batch:
            expected[pfn] += count
        assert frames.mapcount.tolist() == [expected[pfn] for pfn in range(_COUNT)]


def test_a_frame_is_free_when_the_last_of_many_mappings_has_gone() -> None:
    frames = mapped(1)
    pfn = np.zeros(70_000, np.int64)
    frames.get(pfn[:1], np.array([70_000]))
    assert len(frames.put(pfn)) == 0 and frames.used == 1
    frames.put(pfn[:1])
    assert frames.used == 0


def test_a_frame_with_many_mappings_moves_in() -> None:
    frames = Frames(1, with_bytes=False)
    mapping, pins = np.ones(1, np.uint16), np.zeros(1, np.uint16)
    frames.move_in(frames.alloc(1), np.zeros(1, np.uint64), mapping, pins, np.array([70_000], np.int32), None)
    assert frames.mapcount.tolist() == [70_000]


@pytest.mark.parametrize("freed", [5, 5_000, 90_000])
@pytest.mark.parametrize("ascending", [True, False])
def test_frames_freed_last_are_used_again_first(freed: int, ascending: bool) -> None:
    """Two batches; what is taken of one is in the order in which it was freed."""
    frames = Frames(200_000, with_bytes=False)
    frames.map_anon(frames.alloc(190_000), 0)
    gone = np.random.default_rng(freed).permutation(190_000)[: 2 * freed]
    early, late = gone[:freed], gone[freed:]
    if ascending:
        early, late = np.sort(early), np.sort(late)
    for batch in (early, late):
        frames.move_out(batch)
    assert frames.used == 190_000 - 2 * freed
    taken = [frames.alloc(wanted).tolist() for wanted in (1, freed - 1, freed, 200_000)]
    assert taken == [late[-1:].tolist(), late[:-1].tolist(), early.tolist(), list(range(190_000, 200_000))]
    assert frames.free_count == 0


def test_one_stable_node_may_have_more_sharers_than_16_bits_count() -> None:
    pages = 70_000
    knobs = KsmSpec(max_page_sharing=1_000_000)
    machine = Machine(
        InlineFabric(SimulationSpec(MachineSpec(1, pages, from_rows([[10]])), knobs, ()), {}), knobs
    )
    mm = machine.new_process(0)
    machine.map(mm, 0, pages)
    machine.madvise(mm, 0, pages, mergeable=True)
    machine.write(mm, np.arange(pages), np.full(pages, 7, np.uint64))
    for _ in range(2):
        machine.scan()
    dump = machine.dump()[0]
    assert dump.mapcount.tolist() == [pages] and dump.free_count == pages - 1
