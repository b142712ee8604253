"""Page faults of one node's processes: first touch, write, copy-on-write (mm/memory.c), and where the
frames for them come from (mm/mempolicy.c, mm/page_alloc.c)."""

from __future__ import annotations

import numpy as np

from cluster.errors import OutOfMemoryError
from cluster.mailbox import Kind
from cluster.page_table import (
    ACTIVE,
    ITEM,
    KSM,
    PRESENT,
    PTE_NONE,
    PTE_ZERO,
    SHARED,
    STABLE,
    UNSTABLE,
    ZEROED,
)
from cluster.spec import Policy, PolicySpec
from cluster.state import NodeState
from cluster.words import (
    I64,
    U8,
    U64,
    VPN_MASK,
    Bool,
    frame_word,
    mm_of_key,
    node_of_frame,
    node_of_key,
    pfn_of,
)


class Faults:
    """Changes page tables on behalf of processes; `slots` are distinct slots of this node."""

    def __init__(self, node: NodeState) -> None:
        self._n = node

    # What processes do.

    def write(self, slots: I64, ids: U64) -> None:
        """Every page gets the content with the given id, whatever was there."""
        n, table = self._n, self._n.table
        n.counters["pages_written"] += len(slots)
        state = table.state[slots]
        in_place = (state & (PRESENT | KSM)) == PRESENT
        shared = in_place & ((state & SHARED) != 0)
        if shared.any():
            in_place[shared] = self._last_mapper(slots[shared])
        self._overwrite(slots[in_place], ids[in_place])
        fault = slots[~in_place]
        if len(fault):
            self._unmap(fault)
            n.counters["cow_ksm"] += int(np.count_nonzero(state[~in_place] & KSM))
            self._place(fault, ids[~in_place], np.zeros(len(fault), np.uint8))

    def read(self, slots: I64) -> None:
        """First touch by a read maps the shared zero page."""
        table = self._n.table
        untouched = slots[table.pte[slots] == PTE_NONE]
        table.pte[untouched] = PTE_ZERO

    def drop(self, slots: I64) -> None:
        """The pages go (MADV_DONTNEED, munmap, exit); their items stay until ksmd comes by."""
        self._unmap(slots)
        table = self._n.table
        table.pte[slots] = PTE_NONE
        table.state[slots[(table.state[slots] & ITEM) != 0]] |= ACTIVE

    def copy_out(self, slots: I64) -> None:
        """break_ksm(): pages that map a KSM frame get a private copy."""
        ksm = slots[(self._n.table.state[slots] & KSM) != 0]
        if len(ksm) == 0:
            return
        ids = self._n.contents.ids(self._n.table.tree_key[ksm])
        self._n.counters["cow_ksm"] += len(ksm)
        self._unmap(ksm)
        self._place(ksm, ids, np.zeros(len(ksm), np.uint8))

    # Page table changes.

    def touched(self, slots: I64) -> None:
        """Content or mapping changed: ksmd has to look again, and no search is to find the page."""
        n, table = self._n, self._n.table
        n.version += 1
        self.withdraw(slots)
        vmas = n.spaces.index
        state = table.state[slots]
        seen = ((state & ITEM) != 0) | vmas.mergeable[vmas.vma_of(slots)]
        table.state[slots[seen]] |= ACTIVE

    def withdraw(self, slots: I64) -> None:
        """The unstable tree's home forgets these pages, unless it has been told before."""
        n, table = self._n, self._n.table
        waiting = slots[(table.state[slots] & (UNSTABLE | ACTIVE)) == UNSTABLE]
        if len(waiting) == 0:
            return
        digests = table.tree_key[waiting]
        index = n.spaces.index
        keys = index.keys(waiting, index.vma_of(waiting))
        n.out.send(Kind.WITHDRAW, n.home_of_frames(digests, table.pte[waiting]), digests, keys)

    def _unmap(self, slots: I64) -> None:
        """Entries lose their frames; a merged item goes on hanging on its stable node."""
        n, table = self._n, self._n.table
        self.touched(slots)
        state, pte = table.state[slots], table.pte[slots]
        hanging = (state & (KSM | STABLE)) == (KSM | STABLE)
        n.broken.add(slots[hanging], pte[hanging])
        self.put(pte[(state & PRESENT) != 0])
        table.state[slots] = state & ~np.uint8(KSM | SHARED | ZEROED | PRESENT)

    def _last_mapper(self, slots: I64) -> Bool:
        """Whether these entries are the only ones left of frames that a fork shared; they may be written."""
        table = self._n.table
        shared = table.pte[: table.size][
            (table.state[: table.size] & (SHARED | PRESENT)) == (SHARED | PRESENT)
        ]
        frames, mappers = np.unique(shared, return_counts=True)
        last: Bool = mappers[np.searchsorted(frames, table.pte[slots])] == 1
        table.state[slots[last]] &= ~np.uint8(SHARED)
        return last

    def _overwrite(self, slots: I64, ids: U64) -> None:
        if len(slots) == 0:
            return
        n, table = self._n, self._n.table
        digests = n.contents.digests(ids)
        same = ((table.state[slots] & (UNSTABLE | ACTIVE)) == UNSTABLE) & (table.tree_key[slots] == digests)
        self.touched(slots[~same])
        frames = table.pte[slots]
        here = node_of_frame(frames) == n.id
        n.frames.write(pfn_of(frames[here]), ids[here], digests[here])
        away = frames[~here]
        n.out.send(Kind.SET_CONTENT, node_of_frame(away), away, ids[~here])

    # Frames.

    def put(self, frames: I64) -> None:
        """One mapping of each frame goes."""
        n = self._n
        here = node_of_frame(frames) == n.id
        self.on_put(frames[here])
        away = frames[~here]
        n.out.send(Kind.PUT, node_of_frame(away), away)

    def on_put(self, frames: I64) -> None:
        n = self._n
        stale = n.frames.put(pfn_of(frames))
        if len(stale):
            # The generation of a freed KSM frame is known from the words that were put.
            words = frames[np.isin(pfn_of(frames), stale)]
            words = words[np.unique(words, return_index=True)[1]]
            digests = n.frames.content[pfn_of(words)]
            n.out.send(Kind.STALE, n.home_of_frames(digests, words), digests, words)

    def on_get(self, frames: I64) -> None:
        self._n.frames.get(pfn_of(frames))

    def on_set_content(self, frames: I64, ids: U64) -> None:
        n = self._n
        n.frames.write(pfn_of(frames), ids, n.contents.digests(ids))

    def _place(self, slots: I64, ids: U64, attempt: U8) -> None:
        """Finds frames for pages, here at once and elsewhere by message."""
        while len(slots):
            n = self._n
            index = n.spaces.index
            vma_of = index.vma_of(slots)
            keys = index.keys(slots, vma_of)
            targets = self._targets(vma_of, keys, attempt)
            here = targets == n.id
            away = ~here
            n.out.send(Kind.ALLOC, targets[away], slots[away], keys[away], ids[away], attempt[away])
            frames = self._fill(keys[here], ids[here])
            got = len(frames)
            self.install(slots[here][:got], frames)
            slots, ids, attempt = slots[here][got:], ids[here][got:], attempt[here][got:] + np.uint8(1)

    def _fill(self, keys: I64, ids: U64) -> I64:
        """Frames of this node, filled, for as many of the pages as there are frames."""
        n = self._n
        pfns = n.frames.alloc(len(keys))
        n.frames.map_anon(pfns, mm_of_key(keys[: len(pfns)]))
        ids = ids[: len(pfns)]
        n.frames.write(pfns, ids, n.contents.digests(ids))
        return frame_word(n.id, pfns)

    def install(self, slots: I64, frames: I64) -> None:
        table = self._n.table
        table.pte[slots] = frames
        table.state[slots] |= PRESENT

    def on_alloc(self, slots: I64, keys: I64, ids: U64, attempt: U8) -> None:
        frames = np.full(len(keys), -1)
        filled = self._fill(keys, ids)
        frames[: len(filled)] = filled
        self._n.out.send(Kind.ALLOC_REPLY, node_of_key(keys), slots, frames, ids, attempt)

    def on_alloc_reply(self, slots: I64, frames: I64, ids: U64, attempt: U8) -> None:
        got = frames >= 0
        self.install(slots[got], frames[got])
        self._place(slots[~got], ids[~got], attempt[~got] + np.uint8(1))

    def _targets(self, vma_of: I64, keys: I64, attempt: U8) -> I64:
        """The node to ask for each page's frame in this attempt."""
        targets = np.empty(len(keys), np.int64)
        vmas, by_slot = self._n.spaces.index.vmas, self._n.spaces.index.by_slot
        for rank in np.unique(vma_of):
            of_vma = vma_of == rank
            policy = vmas[by_slot[rank]].policy
            targets[of_vma] = self._targets_of(policy, keys[of_vma] & VPN_MASK, attempt[of_vma])
        return targets

    def _targets_of(self, policy: PolicySpec, vpns: I64, attempt: U8) -> I64:
        n = self._n
        if policy.policy is Policy.INTERLEAVE:
            first = np.array(policy.nodes)[vpns % len(policy.nodes)]
            order = n.zonelists
        else:
            start = policy.nodes[0] if policy.policy is Policy.PREFERRED else n.id
            zonelist = n.zonelists[start]
            if policy.policy is Policy.BIND:
                zonelist = zonelist[np.isin(zonelist, policy.nodes)]
            first, order = np.zeros(len(vpns), np.int64), zonelist[None, :]
        if int(attempt.max(initial=0)) >= order.shape[1]:
            allowed = "the nodes it is bound to" if policy.policy is Policy.BIND else "any node"
            raise OutOfMemoryError(
                f"out of memory: a process of node {n.id} finds no free frame on {allowed}; "
                "raise machine.memory_per_node or map less"
            )
        targets: I64 = order[first, attempt]
        return targets
