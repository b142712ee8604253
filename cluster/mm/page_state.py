"""What a page's state word says: the bits, the values of page table entries, and what may go together.

A state word (uint16) holds what the kernel would read from the page table entry, the rmap_item and the struct
page together. `cluster.mm.page_table.PageTable` changes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import U16, Bool, FrameWords, is_huge_word, is_ksm_word

#: Page table entries that are no frame words. PTE_NONE: nothing is mapped. PTE_ZERO: the shared zero page.
#: PTE_HWPOISON: the memory of the page has failed.
#: Values <= PTE_SWAP are swap entries: PTE_SWAP - entry number.
PTE_NONE = -1
PTE_ZERO = -2
PTE_HWPOISON = -3
PTE_SWAP = -4

# The page table entry and its frame.
#: The entry maps a frame.
PRESENT = 128
#: The frame is a KSM frame (PageKsm()).
KSM = 8
#: The KSM frame has no stable node (folio_stable_node() is NULL).
ORPHAN = 2048
#: The private frame may have other mappings since a fork (not PageAnonExclusive()).
SHARED = 32
#: The frame is part of a huge page. `cluster.mm.huge.pages` knows whether a PMD maps it.
HUGE = 16384
#: ksmd mapped the zero page here (is_ksm_zero_pte()).
KSM_ZERO = 64
#: A split of a huge page mapped the zero page here.
SPLIT_ZERO = 32768
#: Without KSM, the page would map the frame that it shared with others at the start (`InitialFrames`).
INITIAL_FRAME = 8192

# The rmap_item.
#: There is one.
ITEM = 1
#: UNSTABLE_FLAG: ksmd has put it into the unstable tree, and has not visited the page since. Counted in
#: pages_unshared.
UNSTABLE = 2
#: The tree's home has an entry for the item (`PageTable.home` or the digest says which node that is).
#: UNSTABLE without it: the page has left the tree, which the kernel sees at the next visit.
IN_UNSTABLE_TREE = 1024
#: STABLE_FLAG: the item belongs to a stable node. Counted in pages_shared or pages_sharing.
STABLE = 4
#: STABLE: copy-on-write or munmap has taken the page out of the KSM frame, but the item still belongs to the
#: frame's stable node (`BrokenOutItems` has the frame).
BROKEN_OUT = 512
#: The item has a checksum.
HAS_CHECKSUM = 256
#: HAS_CHECKSUM: it is not the checksum of the digest in `PageTable.tree_key`.
OTHER_CHECKSUM = 4096

# ksmd.
#: The next visit has something to do. A visit to any other page would change nothing.
VISIT_DUE = 16

#: All that goes with an rmap_item.
OF_ITEM = ITEM | UNSTABLE | IN_UNSTABLE_TREE | STABLE | BROKEN_OUT | HAS_CHECKSUM | OTHER_CHECKSUM
#: All that goes with a mapped frame, or with what ksmd mapped instead.
OF_MAPPING = PRESENT | KSM | ORPHAN | SHARED | HUGE | KSM_ZERO | SPLIT_ZERO
#: All that says where the item is.
OF_TREES = UNSTABLE | IN_UNSTABLE_TREE | STABLE | BROKEN_OUT

_NAMES = [
    "ITEM",
    "UNSTABLE",
    "STABLE",
    "KSM",
    "VISIT_DUE",
    "SHARED",
    "KSM_ZERO",
    "PRESENT",
    "HAS_CHECKSUM",
    "BROKEN_OUT",
    "IN_UNSTABLE_TREE",
    "ORPHAN",
    "OTHER_CHECKSUM",
    "INITIAL_FRAME",
    "HUGE",
    "SPLIT_ZERO",
]


class Rule(NamedTuple):
    """What must hold of every state word that has all of `bits`."""

    bits: int
    #: It has all of these bits, one of these at least, and none of these.
    all_of: int = 0
    any_of: int = 0
    none_of: int = 0

    def broken(self, state: U16) -> Bool:
        """Return which words break the rule. uint16[n] -> bool[n]."""
        bad = (state & (self.all_of | self.none_of)) != self.all_of
        if self.any_of:
            bad |= (state & self.any_of) == 0
        broken: Bool = ((state & self.bits) == self.bits) & bad
        return broken


#: Which bits may go together.
RULES = (
    Rule(KSM, all_of=PRESENT, none_of=SHARED),
    Rule(ORPHAN, all_of=KSM),
    Rule(ORPHAN | STABLE, all_of=BROKEN_OUT),
    Rule(SHARED, all_of=PRESENT),
    Rule(HUGE, all_of=PRESENT, none_of=KSM),
    Rule(KSM_ZERO, none_of=PRESENT),
    Rule(SPLIT_ZERO, none_of=PRESENT | KSM_ZERO),
    Rule(UNSTABLE, all_of=ITEM, none_of=STABLE),
    Rule(IN_UNSTABLE_TREE, all_of=UNSTABLE),
    Rule(STABLE, all_of=ITEM, any_of=KSM | BROKEN_OUT),
    Rule(BROKEN_OUT, all_of=STABLE | VISIT_DUE),
    Rule(HAS_CHECKSUM, all_of=ITEM),
    Rule(OTHER_CHECKSUM, all_of=HAS_CHECKSUM),
)


def names_of(state: int) -> str:
    """Return the names of the bits that are set."""
    return "|".join(name for name in _NAMES if state & globals()[name]) or "0"


def check_states(state: U16, pte: FrameWords) -> None:
    """Raise AssertionError, which names slots, if a word breaks a rule or does not agree with its entry."""
    for rule in RULES:
        check(~rule.broken(state), state, f"breaks {rule}")
    check(((state & PRESENT) != 0) == (pte >= 0), state, "PRESENT does not agree with the entry")
    check(((state & KSM) != 0) == ((pte >= 0) & is_ksm_word(pte)), state, "KSM does not agree with the frame")
    check(((state & HUGE) != 0) == is_huge_word(pte), state, "HUGE does not agree with the frame")
    zero = KSM_ZERO | SPLIT_ZERO
    check(((state & zero) == 0) | (pte == PTE_ZERO), state, "KSM_ZERO or SPLIT_ZERO without the zero page")


def check(holds: Bool, state: U16, what: str) -> None:
    """Raise AssertionError with the first rows where something does not hold."""
    if holds.all():
        return
    rows = np.flatnonzero(~holds)[:5]
    raise AssertionError(f"{what}: " + ", ".join(f"slot {i}: {names_of(int(state[i]))}" for i in rows))
