"""New frames for the pages of one node's processes, and their first contents.

Models the memory policies of mm/mempolicy.c and the zonelists of mm/page_alloc.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.columns import changes, run_of
from cluster.arrays.words import (
    I64,
    MAX_MMS_PER_NODE,
    U8,
    U16,
    U64,
    VPN_MASK,
    Digests,
    FrameWords,
    ItemKeys,
    Slots,
    frame_word,
    mm_of_key,
    node_of_frame,
    node_of_key,
    pfn_of,
)
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import IN_UNSTABLE_TREE, PTE_SWAP
from cluster.mm.vma import Vma
from cluster.spec.errors import OutOfMemoryError
from cluster.spec.scenario import PolicyMode, PolicySpec
from cluster.wire.messages import Kind

if TYPE_CHECKING:
    from cluster.plugins.placement_policy import CheckedPolicy

#: Among `sources`: the page gets new content.
NEW_CONTENT = -1


class PageAllocator:
    """Gives pages new frames, from the nodes that the policies of their VMAs allow.

    `sources` says what the frames will hold: NEW_CONTENT means the content with the id in `ids`; a frame word
    means a copy of that frame, which then loses a mapping; a swap entry means what is in swap.
    `attempt` (uint16) is how many nodes had no free frame for the page.
    """

    def __init__(self, node: NodeState, policies: Mapping[PolicySpec, CheckedPolicy]) -> None:
        """`policies` are those of users' packages."""
        self._n = node
        self._policies = policies

    def write(self, slots: Slots, ids: U64) -> None:
        """Give pages frames with the contents of these ids."""
        self._place(slots, ids, np.full(len(slots), NEW_CONTENT), np.zeros(len(slots), np.uint16))

    def copy(self, slots: Slots, sources: I64) -> None:
        """Give pages frames with copies of other frames, or with what is in swap."""
        self._place(slots, np.zeros(len(slots), np.uint64), sources, np.zeros(len(slots), np.uint16))

    def _place(self, slots: Slots, ids: U64, sources: I64, attempt: U16) -> None:
        """Find frames for pages, here at once and on other nodes by message."""
        while len(slots):
            n = self._n
            index = n.spaces.index
            vma_of = index.vma_of(slots)
            keys = index.keys(slots, vma_of)
            targets = self._targets(vma_of, keys, attempt)
            here = targets == n.id
            if not here.all():
                away, about = ~here, (slots, keys, ids, attempt, sources)
                n.out.send(Kind.ALLOC, targets[away], *(column[away] for column in about))
            frames = self._fill(keys[here], ids[here], sources[here])
            got = len(frames)
            self._install(slots[here][:got], frames, sources[here][:got])
            slots, ids, sources = slots[here][got:], ids[here][got:], sources[here][got:]
            attempt = attempt[here][got:] + np.uint16(1)

    def _fill(self, keys: ItemKeys, ids: U64, sources: I64) -> FrameWords:
        """Take frames of this node for as many of the pages as possible, and write new content to them."""
        n = self._n
        pfns = n.frames.alloc(len(keys))
        n.frames.map_anon(pfns, mm_of_key(keys[: len(pfns)]))
        new = sources[: len(pfns)] == NEW_CONTENT
        ids = ids[: len(pfns)][new]
        n.frames.write(pfns[new], ids, n.contents.digests(ids))
        return frame_word(n.id, pfns)

    def on_alloc(self, slots: Slots, keys: ItemKeys, ids: U64, attempt: U16, sources: I64) -> None:
        frames = np.full(len(keys), -1)
        filled = self._fill(keys, ids, sources)
        frames[: len(filled)] = filled
        self._n.out.send(Kind.ALLOC_REPLY, node_of_key(keys), slots, frames, ids, attempt, sources)

    def on_alloc_reply(self, slots: Slots, frames: FrameWords, ids: U64, attempt: U16, sources: I64) -> None:
        got = frames >= 0
        self._install(slots[got], frames[got], sources[got])
        self._place(slots[~got], ids[~got], sources[~got], attempt[~got] + np.uint16(1))

    def _install(self, slots: Slots, frames: FrameWords, sources: I64) -> None:
        n = self._n
        n.table.map_frames(slots, frames)
        self.tell_frames(slots)
        if (sources == NEW_CONTENT).all():
            return
        copies = sources >= 0
        n.out.send(Kind.COPY, node_of_frame(sources[copies]), sources[copies], frames[copies])
        swapped = sources <= PTE_SWAP
        self._swapped_in(slots[swapped], frames[swapped], sources[swapped])

    def tell_frames(self, slots: Slots) -> None:
        """Tell the unstable tree's homes which frames its mergeable pages among these have now."""
        n, table = self._n, self._n.table
        slots = slots[(table.state[slots] & IN_UNSTABLE_TREE) != 0]
        index = n.spaces.index
        slots = slots[index.mergeable[index.vma_of(slots)]]
        if len(slots):
            keys, digests, homes = n.unstable_entries(slots)
            n.out.send(Kind.WAIT_FRAME, homes, digests, keys, n.tree_words(slots))

    def _swapped_in(self, slots: Slots, frames: FrameWords, entries: I64) -> None:
        """Fill frames from swap; frames of entries with other references stay in the swap cache."""
        n = self._n
        if len(slots) == 0:
            return
        n.out.send(Kind.FILL, node_of_frame(frames), frames, *n.swap.read(entries))
        shared = n.swap.shared(entries) & (n.swap.frame_of(entries) < 0)
        n.swap.cache(entries[shared], frames[shared])
        n.out.send(Kind.PIN, node_of_frame(frames[shared]), frames[shared])
        n.table.set_shared(slots[shared])
        # A page may be copied although the swap cache has its frame (ksm_might_need_to_copy()).
        unpinned = n.swap.put(entries)
        n.out.send(Kind.UNPIN, node_of_frame(unpinned), unpinned)

    def first_nodes(self, slots: Slots) -> I64:
        """Return the first node that each page's policy asks for a frame. int64[n]."""
        index = self._n.spaces.index
        vma_of = index.vma_of(slots)
        return self._targets(vma_of, index.keys(slots, vma_of), np.zeros(len(slots), np.uint16))

    def _targets(self, vma_of: I64, keys: ItemKeys, attempt: U16) -> I64:
        """Return the node to ask for each page's frame in this attempt. int64[n]."""
        targets = np.empty(len(keys), np.int64)
        index = self._n.spaces.index
        order = np.argsort(vma_of, kind="stable")
        starts = np.flatnonzero(changes(vma_of[order]))
        rows_of = [run_of(order[low:high]) for low, high in pairwise([*starts.tolist(), len(order)])]
        places = index.by_slot[vma_of[order[starts]]].tolist()
        vmas = zip((index.vmas[at] for at in places), rows_of, strict=True)
        # By address, in the order of the faults: one VMA may take the anon_vma of another.
        for vma, of_vma in sorted(vmas, key=lambda pair: pair[0].start):
            self._n.spaces.mms[vma.mm].anon_vmas.prepare(vma.start)
            targets[of_vma] = self._targets_of(vma, keys[of_vma] & VPN_MASK, attempt[of_vma])
        return targets

    def _targets_of(self, vma: Vma, vpns: I64, attempt: U16) -> I64:
        n, policy = self._n, vma.policy
        if policy.plugin is not None:
            return self._ask_policy(vma, vpns, attempt)
        if policy.policy is PolicyMode.BIND:
            order = n.zonelist(n.id)
            order = order[np.isin(order, policy.nodes)]
            self._check_attempts(attempt, len(order), "the nodes it is bound to")
            targets: I64 = order[attempt]
            return targets
        if policy.policy is PolicyMode.INTERLEAVE:
            first = np.array(policy.nodes)[vpns % len(policy.nodes)]
        else:
            first = np.full(len(vpns), policy.nodes[0] if policy.policy is PolicyMode.PREFERRED else n.id)
        return self._next_nodes(first, attempt)

    def _next_nodes(self, first: I64, attempt: U16) -> I64:
        """Return the node to ask in this attempt: the first one, then the others, the nearest to it first."""
        n = self._n
        self._check_attempts(attempt, n.nodes, "any node")
        targets, refused = first.copy(), np.flatnonzero(attempt)
        for start in np.unique(first[refused]).tolist():
            of_start = refused[first[refused] == start]
            targets[of_start] = n.zonelist(start)[attempt[of_start]]
        return targets

    def _ask_policy(self, vma: Vma, vpns: I64, attempt: U16) -> I64:
        """Ask the user's policy for the node of a page's first attempt; then come all, the nearest first."""
        n, first = self._n, attempt == 0
        order = np.append(-1, n.zonelist(n.id))
        self._check_attempts(attempt, len(order), "any node")
        targets: I64 = order[attempt]
        if first.any():
            from cluster.plugins.placement_policy import PageFaults

            process = vma.mm & (MAX_MMS_PER_NODE - 1)
            faults = PageFaults(vma.name, process, vpns[first] - vma.start, n.frames.free_count)
            targets[first] = self._policies[vma.policy].nodes_for(faults)
        return targets

    def _check_attempts(self, attempt: U16, most: int, allowed: str) -> None:
        """Raise OutOfMemoryError if a page has been refused by all nodes that are allowed."""
        if int(attempt.max(initial=0)) >= most:
            raise OutOfMemoryError(
                f"out of memory: a process of node {self._n.id} finds no free frame on {allowed}; "
                "raise machine.memory_per_node or map less"
            )

    # Frames of this node.

    def on_copy(self, sources: I64, frames: FrameWords) -> None:
        n = self._n
        n.out.send(Kind.FILL, node_of_frame(frames), frames, *n.frames.read(pfn_of(sources)))
        n.out.send(Kind.PUT, n.id, sources)

    def on_fill(self, frames: FrameWords, digests: Digests, pages: U8 | None = None) -> None:
        self._n.frames.fill(pfn_of(frames), digests, pages)
