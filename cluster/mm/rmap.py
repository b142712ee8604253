"""Reverse mapping of KSM frames (rmap_walk_ksm()): from the stable node's rmap_items to page table entries.

It finds the pages of the items, and those that forked children inherited from them. The children of a process
are on its node, so each node answers for its own page table entries.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import VPN_BITS, VPN_MASK, Bool, Slots
from cluster.mm.node_state import NodeState


def found(n: NodeState, slots: Slots) -> Bool:
    """Return which page table entries of KSM frames reverse mapping finds. int64[n] -> bool[n]."""
    frames = n.table.pte[slots]
    hit: Bool = n.table.stable_frames(slots) == frames
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
            hit[missing] = n.table.stable_frames(theirs) == frames[missing]
    return hit
