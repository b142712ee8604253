"""Reverse mapping of KSM frames (rmap_walk_ksm()): from the stable node's rmap_items to page table entries.

It finds the pages of the items, and those that forked children inherited from them; the children of a process
are on its node, so each node answers for its own page table entries.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, VPN_BITS, VPN_MASK, Bool
from cluster.mm.node_state import NodeState
from cluster.mm.page_table import BROKEN, STABLE


def found(n: NodeState, slots: I64) -> Bool:
    """Which of these page table entries of KSM frames reverse mapping finds."""
    frames = n.table.pte[slots]
    hit: Bool = _hangs_on(n, slots) == frames
    index = n.spaces.index
    vma_of = index.vma_of(slots)
    keys = index.keys(slots, vma_of)
    for rank in np.unique(vma_of[~hit]):
        vma = index.vmas[index.by_slot[rank]]
        for ancestor in n.spaces.mms[vma.mm].anon_vmas.lineage(vma.start):
            missing = np.flatnonzero((vma_of == rank) & ~hit)
            theirs = index.slots((ancestor << VPN_BITS) | (keys[missing] & VPN_MASK))
            there = theirs >= 0
            missing, theirs = missing[there], theirs[there]
            hit[missing] = _hangs_on(n, theirs) == frames[missing]
    return hit


def _hangs_on(n: NodeState, slots: I64) -> I64:
    """The KSM frame whose stable node each item hangs on; -1 for none."""
    state = n.table.state[slots]
    frames = np.where((state & STABLE) != 0, n.table.pte[slots], -1)
    broken = (state & BROKEN) != 0
    frames[broken] = n.broken.frames_of(slots[broken])
    return frames
