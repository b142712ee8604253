"""What the processes of one node do to their pages: touch, write, copy-on-write, unmap (mm/memory.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_where
from cluster.arrays.words import I64, U8, U64, Bool, is_ksm_word, node_of_frame, node_of_key, on_node, pfn_of
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_table import (
    ACTIVE,
    BROKEN,
    ITEM,
    KSM,
    ORPHAN,
    PRESENT,
    PTE_NONE,
    PTE_SWAP,
    PTE_ZERO,
    SHARED,
    STABLE,
    WAITING,
    ZEROED,
)
from cluster.mm.rmap import found
from cluster.wire.messages import Kind


class Faults:
    """Changes page tables on behalf of processes; `slots` are distinct slots of this node."""

    def __init__(self, node: NodeState, placement: PageAllocator) -> None:
        self._n = node
        self._placement = placement

    # What processes do.

    def write(self, slots: I64, ids: U64) -> None:
        """Every page gets the content with the given id, whatever was there."""
        n, table = self._n, self._n.table
        n.counters["pages_written"] += len(slots)
        state = table.state[slots]
        digests = n.contents.digests(ids)
        waiting = (state & WAITING) != 0
        same = waiting & (table.tree_key[slots] == digests)
        self._change(slots[waiting], digests[waiting])
        in_place = (state & (PRESENT | KSM)) == PRESENT
        shared = in_place & ((state & SHARED) != 0)
        if shared.any():
            in_place[shared] = self._last_mapper(slots[shared])
        self.touched(slots[~(same & in_place)])
        self._overwrite(slots[in_place], ids[in_place], digests[in_place])
        fault = slots[~in_place]
        if len(fault):
            n.counters["cow_ksm"] += self._ksm_pages(fault)
            self.put(self._unmap(fault))
            self._placement.write(fault, ids[~in_place])

    def read(self, slots: I64) -> None:
        """First touch by a read maps the shared zero page; what is in swap comes back."""
        table = self._n.table
        untouched = slots[table.pte[slots] == PTE_NONE]
        table.pte[untouched] = PTE_ZERO
        self._swap_in(slots[table.pte[slots] <= PTE_SWAP])

    def drop(self, slots: I64) -> None:
        """The pages go (MADV_DONTNEED, munmap, exit); their items stay until ksmd comes by."""
        self.lose(slots)
        self.touched(slots)
        self.put(self._unmap(slots))

    def break_ksm(self, slots: I64) -> None:
        """Pages that KSM merged, or mapped to the zero page, get frames of their own."""
        n, table = self._n, self._n.table
        state = table.state[slots]
        if n.profile.track_zero_pages:
            zeroed = slots[(state & ZEROED) != 0]
            self.touched(zeroed)
            self._unmap(zeroed)
            self._placement.write(zeroed, np.zeros(len(zeroed), np.uint64))
        ksm = slots[(state & KSM) != 0]
        n.counters["cow_ksm"] += len(ksm)
        self.touched(ksm)
        self._placement.copy(ksm, self._unmap(ksm))

    # Page table changes.

    def touched(self, slots: I64) -> None:
        """Content or mapping changed: ksmd has to look again."""
        n, table = self._n, self._n.table
        if len(slots) == 0:
            return
        n.version += 1
        vmas = n.spaces.index
        state = table.state[slots]
        seen = ((state & ITEM) != 0) | vmas.mergeable[vmas.vma_of(slots)]
        table.state[slots[seen]] |= ACTIVE

    def withdraw(self, slots: I64) -> None:
        """The unstable tree's home forgets these pages."""
        n, table = self._n, self._n.table
        waiting = slots[(table.state[slots] & WAITING) != 0]
        if len(waiting):
            keys, digests, homes = n.waiting(waiting)
            n.out.send(Kind.WITHDRAW, homes, digests, keys)
            table.state[waiting] &= ~np.uint16(WAITING)

    def _change(self, slots: I64, digests: U64) -> None:
        """The unstable tree's home learns what these waiting pages hold now."""
        n = self._n
        if len(slots):
            keys, old, homes = n.waiting(slots)
            n.out.send(Kind.WAIT_CONTENT, homes, old, keys, digests)

    def lose(self, slots: I64) -> None:
        """The unstable tree's home learns that these pages are not there for now."""
        n, table = self._n, self._n.table
        waiting = slots[(table.state[slots] & WAITING) != 0]
        if len(waiting):
            keys, digests, homes = n.waiting(waiting)
            n.out.send(Kind.WAIT_FRAME, homes, digests, keys, np.full(len(keys), -1))

    def reappear(self, slots: I64) -> None:
        """Pages that were lost, but not changed, are there again."""
        self._placement.tell_frames(slots[(self._n.table.state[slots] & PRESENT) != 0])

    def _ksm_pages(self, slots: I64) -> int:
        """How many of these pages are KSM pages, in the page table or in the swap cache."""
        n = self._n
        ptes = n.table.pte[slots]
        cached = n.swap.frame_of(ptes[ptes <= PTE_SWAP])
        mapped = np.count_nonzero(n.table.state[slots] & KSM)
        return int(mapped + np.count_nonzero((cached >= 0) & is_ksm_word(cached)))

    def _unmap(self, slots: I64) -> I64:
        """Entries lose their frames, which are returned; merged items go on hanging on their stable nodes."""
        n, table = self._n, self._n.table
        state, pte = table.state[slots], table.pte[slots]
        hanging = (state & (KSM | STABLE | BROKEN)) == (KSM | STABLE)
        n.broken.add(slots[hanging], pte[hanging], table.tree_key[slots[hanging]])
        state[hanging] |= BROKEN
        table.state[slots] = state & ~np.uint16(KSM | SHARED | ZEROED | PRESENT | ORPHAN)
        table.pte[slots] = PTE_NONE
        cached = n.swap.put(pte[pte <= PTE_SWAP])
        n.out.send(Kind.UNPIN, node_of_frame(cached), cached)
        frames: I64 = pte[(state & PRESENT) != 0]
        return frames

    def _last_mapper(self, slots: I64) -> Bool:
        """Whether these entries are the only ones left of frames that a fork shared; they may be written."""
        n, table = self._n, self._n.table
        shared = table.pte[: table.size][
            (table.state[: table.size] & (SHARED | PRESENT)) == (SHARED | PRESENT)
        ]
        frames, mappers = np.unique(shared, return_counts=True)
        mine = table.pte[slots]
        last: Bool = (mappers[np.searchsorted(frames, mine)] == 1) & (n.swap.entries_of(mine) == 0)
        table.state[slots[last]] &= ~np.uint16(SHARED)
        return last

    def _overwrite(self, slots: I64, ids: U64, digests: U64) -> None:
        n = self._n
        frames = n.table.pte[slots]
        here = on_node(frames, n.id)
        n.frames.write(pfn_of(frames[here]), ids[here], digests[here])
        away = frames[~here]
        n.out.send(Kind.SET_CONTENT, node_of_frame(away), away, ids[~here])

    # Frames.

    def put(self, frames: I64) -> None:
        """One mapping of each frame goes."""
        n = self._n
        here = on_node(frames, n.id)
        self.on_put(frames[rows_where(here)])
        away = frames[np.flatnonzero(~here)]
        n.out.send(Kind.PUT, node_of_frame(away), away)

    def on_put(self, frames: I64) -> None:
        self._tell_stale(frames, self._n.frames.put(pfn_of(frames)))

    def on_get(self, frames: I64, count: I64) -> None:
        self._n.frames.get(pfn_of(frames), count)

    def on_pin(self, frames: I64) -> None:
        self._n.frames.pin(pfn_of(frames))

    def on_unpin(self, frames: I64) -> None:
        self._tell_stale(frames, self._n.frames.unpin(pfn_of(frames)))

    def _tell_stale(self, frames: I64, stale: I64) -> None:
        """KSM frames have been freed; their generation is known from the words that were put."""
        if len(stale) == 0:
            return
        n = self._n
        words = frames[np.isin(pfn_of(frames), stale)]
        words = words[np.unique(words, return_index=True)[1]]
        digests = n.frames.content[pfn_of(words)]
        n.send_to_trees(Kind.STALE, n.home_of_frames(digests, words), words, digests, words)

    def tell_cached(self) -> None:
        """Asks the nodes of KSM frames in the swap cache whether somebody maps them."""
        cached = self._n.swap.cached
        frames = cached[(cached >= 0) & is_ksm_word(cached)]
        self._n.out.send(Kind.CACHED, node_of_frame(frames), frames)

    def on_cached(self, frames: I64) -> None:
        n = self._n
        frames = frames[n.frames.mapcount[pfn_of(frames)] == 0]
        digests = n.frames.content[pfn_of(frames)]
        n.send_to_trees(Kind.UNMAPPED, n.home_of_frames(digests, frames), frames, digests, frames)

    def on_set_content(self, frames: I64, ids: U64) -> None:
        n = self._n
        n.frames.write(pfn_of(frames), ids, n.contents.digests(ids))

    # Swap.

    def page_out(self, slots: I64) -> None:
        """Pages with one mapping are written to swap, if reverse mapping finds it."""
        n, table = self._n, self._n.table
        state = table.state[slots]
        slots = slots[((state & PRESENT) != 0) & ((state & ORPHAN) == 0)]
        ksm = (table.state[slots] & KSM) != 0
        reached = ~ksm
        reached[ksm] = found(n, slots[ksm])
        slots = slots[reached]
        frames = table.pte[slots]
        n.out.send(Kind.SWAP_REQUEST, node_of_frame(frames), slots, n.keys_of(slots), frames)

    def on_swap_request(self, slots: I64, keys: I64, frames: I64) -> None:
        n = self._n
        alone = n.frames.mapcount[pfn_of(frames)] == 1
        slots, keys, frames = slots[alone], keys[alone], frames[alone]
        n.out.send(Kind.SWAP_REPLY, node_of_key(keys), slots, frames, *n.frames.read(pfn_of(frames)))

    def on_swap_reply(self, slots: I64, frames: I64, digests: U64, pages: U8 | None = None) -> None:
        n, table = self._n, self._n.table
        entries = n.swap.entries_of(frames)
        new = entries == 0
        entries[new] = n.swap.add(digests[new], None if pages is None else pages[new])
        n.swap.hold(entries[~new])
        n.swap.cache(entries[~new], np.full(int((~new).sum()), -1))
        n.out.send(Kind.UNPIN, node_of_frame(frames[~new]), frames[~new])
        self.lose(slots)
        self.touched(slots)
        self.put(self._unmap(slots))
        table.pte[slots] = entries

    def _swap_in(self, slots: I64) -> None:
        """do_swap_page(): from the swap cache or from swap itself."""
        n, table = self._n, self._n.table
        entries = table.pte[slots]
        cached = n.swap.frame_of(entries)
        mapped = cached >= 0
        # ksm_might_need_to_copy(): a KSM frame without its stable node may not be mapped.
        copied = mapped & np.isin(cached, list(n.orphans))
        n.counters["ksm_swpin_copy"] += int(np.count_nonzero(copied))
        self.touched(slots)
        self._map_cached(slots[mapped & ~copied], entries[mapped & ~copied], cached[mapped & ~copied])
        self._placement.copy(slots[~mapped | copied], entries[~mapped | copied])

    def _map_cached(self, slots: I64, entries: I64, frames: I64) -> None:
        n, table = self._n, self._n.table
        table.pte[slots] = frames
        ksm = is_ksm_word(frames)
        table.state[slots] |= np.where(ksm, PRESENT | KSM, PRESENT | SHARED).astype(np.uint16)
        table.rekey(slots[ksm], n.swap.read(entries[ksm])[0])
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))
        self._placement.tell_frames(slots)
        unpinned = n.swap.put(entries)
        n.out.send(Kind.UNPIN, node_of_frame(unpinned), unpinned)
