"""The page table lets nobody else write it, refuses illegal transitions, and notices contradictions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from cluster.arrays.words import frame_word, ksm_word
from cluster.mm import page_state as bits
from cluster.mm.page_table import PageTable

PAGES = 8
SLOTS = np.arange(PAGES)
FRAMES = frame_word(0, SLOTS)
KSM_FRAMES = ksm_word(FRAMES, 3)
DIGESTS = SLOTS.astype(np.uint64)


def mapped() -> PageTable:
    table = PageTable()
    table.allocate(PAGES)
    table.map_frames(SLOTS, FRAMES)
    return table


def merged() -> PageTable:
    table = mapped()
    table.add_items(SLOTS)
    table.make_ksm(SLOTS, KSM_FRAMES, DIGESTS, orphan=False)
    table.set_stable(SLOTS)
    return table


def test_columns_can_only_be_read() -> None:
    table = mapped()
    for column in (table.pte, table.state, table.tree_key):
        with pytest.raises(ValueError, match="read-only"):
            column[SLOTS] = 0
        with pytest.raises(ValueError, match="read-only"):
            column[2:4] |= column.dtype.type(1)


@pytest.mark.parametrize(
    ("illegal", "names"),
    [
        (lambda table: table.map_frames(SLOTS[3:5], FRAMES[3:5]), "slot 3: PRESENT"),
        (lambda table: table.set_unstable(SLOTS[2:]), "slot 2: PRESENT"),
        (lambda table: table.set_stable(SLOTS[5:6]), "slot 5: PRESENT"),
        (lambda table: table.leave_unstable_tree(SLOTS[1:2]), "slot 1: PRESENT"),
        (lambda table: table.take_broken_out(SLOTS[7:]), "slot 7: PRESENT"),
        (lambda table: table.release(0, 4), "slot 0: PRESENT"),
        (lambda table: table.mark_due(np.array([4, 4])), "not distinct"),
        (lambda table: table.mark_due(np.array([PAGES])), "not allocated"),
    ],
)
def test_an_illegal_transition_names_its_slots(illegal: Callable[[PageTable], None], names: str) -> None:
    with pytest.raises(AssertionError, match=names):
        illegal(mapped())


def test_a_page_broken_out_stays_with_its_stable_node_until_its_item_is_taken() -> None:
    table = merged()
    assert table.unmap(SLOTS[:3]).tolist() == KSM_FRAMES[:3].tolist()
    table.validate()
    assert table.stable_frames(SLOTS).tolist() == KSM_FRAMES.tolist()
    frames, digests = table.take_broken_out(SLOTS[:2])
    assert (frames.tolist(), digests.tolist()) == (KSM_FRAMES[:2].tolist(), [0, 1])
    table.drop_stable_nodes(KSM_FRAMES[2:3])
    table.validate()
    assert table.stable_frames(SLOTS[:4]).tolist() == [-1, -1, -1, KSM_FRAMES[3]]


def test_every_change_is_counted_and_nothing_else() -> None:
    table = mapped()
    before = table.version
    table.mark_due(SLOTS[:0])
    table.checksums(SLOTS)
    table.validate()
    assert table.version == before
    table.mark_due(SLOTS[:1])
    assert table.version > before


def test_a_checksum_outlives_a_new_digest() -> None:
    table = mapped()
    table.visit_private(SLOTS, SLOTS, table.state[SLOTS], DIGESTS, SLOTS[:0])
    sums = table.checksums(SLOTS)
    table.rekey(SLOTS[1:3], np.array([77, 78], np.uint64))
    table.validate()
    assert table.checksums(SLOTS).tolist() == sums.tolist()
    table.confirm_checksums(SLOTS[1:2])
    table.validate()
    assert (table.checksums(SLOTS) != sums).tolist() == [False, True, *[False] * 6]


def test_contradictory_states_are_noticed() -> None:
    """Of all words of one to three bits, those pass that a list made by hand allows."""
    allowed = [
        bits.ITEM,
        bits.ITEM | bits.UNSTABLE,
        bits.ITEM | bits.UNSTABLE | bits.IN_UNSTABLE_TREE,
        bits.ITEM | bits.HAS_CHECKSUM,
        bits.ITEM | bits.HAS_CHECKSUM | bits.UNSTABLE,
        bits.ITEM | bits.HAS_CHECKSUM | bits.OTHER_CHECKSUM,
    ]
    flags = (bits.ITEM, bits.UNSTABLE, bits.STABLE, bits.KSM, bits.SHARED, bits.HAS_CHECKSUM)
    more = (bits.BROKEN_OUT, bits.IN_UNSTABLE_TREE, bits.ORPHAN, bits.OTHER_CHECKSUM, bits.PRESENT)
    words = {sum(some) for count in (1, 2, 3) for some in combinations(flags + more, count)}
    for word in sorted(words):
        state, pte = np.array([word], np.uint16), np.array([bits.PTE_NONE])
        if word in allowed:
            bits.check_states(state, pte)
        else:
            with pytest.raises(AssertionError, match="slot 0"):
                bits.check_states(state, pte)
