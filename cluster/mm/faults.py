"""Page faults of one node's processes: first touch, write, copy-on-write, unmap, swap (mm/memory.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import changes, rows_where, rows_with
from cluster.arrays.words import (
    HUGE_SIZE,
    I64,
    U8,
    U64,
    Bool,
    Digests,
    FrameWords,
    ItemKeys,
    Pfns,
    Slots,
    empty,
    is_huge_word,
    is_ksm_word,
    node_of_frame,
    node_of_key,
    on_node,
    pfn_of,
)
from cluster.mm.huge.allocate import HugeAllocator, slots_of
from cluster.mm.huge.mappings import HugeMappings
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_state import (
    HUGE,
    IN_UNSTABLE_TREE,
    INITIAL_FRAME,
    ITEM,
    KSM,
    KSM_ZERO,
    ORPHAN,
    PRESENT,
    PTE_HWPOISON,
    PTE_NONE,
    PTE_SWAP,
    PTE_ZERO,
    SHARED,
)
from cluster.mm.rmap import found
from cluster.wire.messages import Kind


class Faults:
    """Changes page tables and frames on behalf of processes. Slots in arguments are distinct."""

    def __init__(
        self,
        node: NodeState,
        allocator: PageAllocator,
        huge: HugeMappings,
        huge_allocator: HugeAllocator,
    ) -> None:
        self._n = node
        self._allocator = allocator
        self._huge = huge
        self._huge_allocator = huge_allocator
        #: Writes to pages for which other nodes allocate huge pages: slots and content ids.
        self._pending: tuple[Slots, U64] = empty(), empty(np.uint64)

    # What processes do.

    def write(self, slots: Slots, ids: U64) -> None:
        """Write the contents with these ids to pages, and tell the unstable tree's homes."""
        n = self._n
        n.counters["pages_written"] += len(slots)
        if n.spaces.index.any_huge:
            slots, ids = self._fault_huge(slots, ids)
        self._write(slots, ids)

    def _write(self, slots: Slots, ids: U64) -> None:
        n, table = self._n, self._n.table
        state = table.state[slots]
        digests = n.contents.digests(ids)
        in_tree = (state & IN_UNSTABLE_TREE) != 0
        same = in_tree & (table.tree_key[slots] == digests)
        self._tell_contents(slots[in_tree], digests[in_tree])
        in_place = (state & (PRESENT | KSM)) == PRESENT
        shared = in_place & ((state & (SHARED | INITIAL_FRAME)) != 0)
        if shared.any():
            in_place[shared] = self._make_exclusive(slots[shared])
        self.touched(slots[~(same & in_place)])
        self._overwrite(slots[in_place], ids[in_place], digests[in_place])
        fault = slots[~in_place]
        if len(fault):
            n.counters["cow_ksm"] += self._ksm_pages(fault)
            self._huge.split_pmds(fault)
            self.put(self.unmap(fault))
            self._allocator.write(fault, ids[~in_place])

    def fill(self, slots: Slots, ids: U64, bases: Slots) -> None:
        """Write first contents to untouched pages; those at `bases` become huge pages, where there is one."""
        if len(bases):
            before = self._huge_allocator.waiting
            nodes = self._allocator.first_nodes(bases)
            self._huge_allocator.allocate(bases, nodes, self._install_huge)
            slots, ids = self._not_waiting(slots, ids, before)
        self._write(slots, ids)

    def fill_parts(self, slots: Slots, ids: U64, numbers: I64) -> None:
        """Write first contents to untouched pages that are parts of huge pages: those of one number of one.

        No PMD maps them; the other pages of the huge pages are unmapped.
        """
        if len(slots) == 0:
            return
        order = np.argsort(numbers, kind="stable")
        start = np.flatnonzero(changes(numbers[order]))
        parts = dict(zip(slots[order[start]].tolist(), np.split(order, start[1:]), strict=True))
        firsts = np.array(list(parts), np.int64)

        def install(of: Slots, first: FrameWords) -> None:
            for slot, frame in zip(of.tolist(), first.tolist(), strict=True):
                rows = parts[slot]
                if frame >= 0:
                    self._huge.install_part(slots[rows], frame)
                    self.put(frame + np.arange(len(rows), HUGE_SIZE))
                    self.touched(slots[rows])
                self._write(slots[rows], ids[rows])

        self._huge_allocator.allocate(firsts, self._allocator.first_nodes(firsts), install)

    def _fault_huge(self, slots: Slots, ids: U64) -> tuple[Slots, U64]:
        """Fault huge pages in; return the pages that can be written now, and what is written."""
        before = self._huge_allocator.waiting
        self._huge.fault_in(slots, self._install_huge)
        return self._not_waiting(slots, ids, before)

    def _not_waiting(self, slots: Slots, ids: U64, before: int) -> tuple[Slots, U64]:
        """Return the pages that can be written now; others wait for huge pages asked for since `before`."""
        if self._huge_allocator.waiting == before:
            return slots, ids
        waits = self._huge_allocator.waits(self._n.bases_of(slots))
        pending, pending_ids = self._pending
        self._pending = np.concatenate([pending, slots[waits]]), np.concatenate([pending_ids, ids[waits]])
        return slots[~waits], ids[~waits]

    def _install_huge(self, bases: Slots, first: FrameWords) -> None:
        """Map huge pages, and carry out the writes that waited for them; where there is none, small pages."""
        n, got = self._n, first >= 0
        self._huge.install(bases[got], first[got])
        n.counters["thp_fault_alloc"] += int(np.count_nonzero(got))
        n.counters["thp_fault_fallback"] += int(np.count_nonzero(~got))
        self.touched(slots_of(bases[got]))
        slots, ids = self._pending
        now = np.isin(slots, slots_of(bases))
        self._pending = slots[~now], ids[~now]
        if now.any():
            self._write(slots[now], ids[now])

    def write_same(self, slots: Slots) -> None:
        """Write to pages what they hold; untouched ones get zeros.

        This breaks sharing as any write does. Nothing changes where a page is written in place.
        """
        n, pte = self._n, self._n.table.pte[slots]
        n.counters["pages_written"] += len(slots)
        self.swap_in(slots[pte <= PTE_SWAP])
        state = n.table.state[slots]
        in_place = (state & (PRESENT | KSM)) == PRESENT
        ksm, shared = slots[(state & KSM) != 0], slots[in_place & ((state & (SHARED | INITIAL_FRAME)) != 0)]
        n.counters["cow_ksm"] += len(ksm)
        if len(shared):
            shared = shared[~self._make_exclusive(shared)]
        copied = np.concatenate([ksm, shared])
        self.touched(copied)
        self._allocator.copy(copied, self.unmap(copied))
        zeros = slots[(pte == PTE_NONE) | (pte == PTE_ZERO)]
        self.touched(zeros)
        self.unmap(zeros)
        self._allocator.write(zeros, np.zeros(len(zeros), np.uint64))

    def read(self, slots: Slots) -> None:
        """Read pages: untouched ones map the shared zero page, and others come back from swap."""
        table = self._n.table
        if self._n.spaces.index.any_huge:
            self._huge.map_zero(slots)
        table.map_zero_page(slots[table.pte[slots] == PTE_NONE])
        self.swap_in(slots[table.pte[slots] <= PTE_SWAP])

    def drop(self, slots: Slots) -> None:
        """Drop pages of a VMA (MADV_DONTNEED, munmap, exit); their items stay until ksmd's next visit."""
        self._huge.keep_tables(slots)
        n, released = self._n, slots[:0]
        if len(n.pinned):
            released = np.setdiff1d(n.of_huge_pages(self._unpin(slots)), slots)
        self.tell_gone(slots)
        self.touched(slots)
        self.put(self.unmap(slots))
        self._allocator.tell_frames(released)

    def lose(self, slots: Slots) -> None:
        """Take the frames of small pages, or their swap entries, from processes: their memory has failed."""
        self._unpin(slots)
        self.tell_gone(slots)
        self.touched(slots)
        self.put(self.unmap(slots))
        self._n.table.set_swap_entries(slots, np.full(len(slots), PTE_HWPOISON))

    def _unpin(self, slots: Slots) -> Slots:
        """End the pins of those of these pages that are pinned, and return them."""
        n = self._n
        unpinned = n.pinned.take(slots)
        frames = n.table.pte[unpinned]
        n.out.send(Kind.UNPIN, node_of_frame(frames), frames)
        return unpinned

    def pin(self, slots: Slots) -> None:
        """Pin pages, which have frames of their own, until they are dropped (pin_user_pages())."""
        n, frames = self._n, self._n.table.pte[slots]
        n.pinned.add(slots)
        n.out.send(Kind.PIN, node_of_frame(frames), frames)
        self._allocator.tell_frames(np.union1d(slots, n.of_huge_pages(slots)))

    def copy_pinned(self, old: Slots, new: Slots) -> tuple[Slots, Slots]:
        """Copy pinned pages of a parent for its child; return the others of both (copy_present_page())."""
        n = self._n
        self._huge.split_pmds(old[n.fixed(old) & ((n.table.state[old] & HUGE) != 0)])
        pinned = n.pinned.among(old)
        frames = n.table.pte[old[pinned]]
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))
        self.touched(new[pinned])
        self._allocator.copy(new[pinned], frames)
        return old[~pinned], new[~pinned]

    def break_ksm(self, slots: Slots) -> None:
        """Give pages that KSM merged, or mapped to the zero page, frames of their own (break_ksm())."""
        n, table = self._n, self._n.table
        state = table.state[slots]
        if n.profile.track_zero_pages:
            zeros = slots[(state & KSM_ZERO) != 0]
            self.touched(zeros)
            self.unmap(zeros, keep=INITIAL_FRAME)
            self._allocator.write(zeros, np.zeros(len(zeros), np.uint64))
        ksm = slots[(state & KSM) != 0]
        n.counters["cow_ksm"] += len(ksm)
        self.touched(ksm)
        self._allocator.copy(ksm, self.unmap(ksm, keep=INITIAL_FRAME))

    # Page table changes.

    def touched(self, slots: Slots) -> None:
        """Mark pages whose content or mapping changes, so that ksmd's next visit looks at them."""
        if len(slots) == 0:
            return
        table, vmas = self._n.table, self._n.spaces.index
        visited = ((table.state[slots] & ITEM) != 0) | vmas.mergeable[vmas.vma_of(slots)]
        table.mark_due(slots[visited])

    def leave_unstable_tree(self, slots: Slots) -> None:
        """Take those of these pages that are in the unstable tree out of it."""
        slots = self._in_unstable_tree(slots)
        self.send_withdraw(slots)
        self._n.table.leave_unstable_tree(slots)

    def send_withdraw(self, slots: Slots) -> None:
        """Ask the homes to remove the unstable tree's entries of these pages (WITHDRAW)."""
        n = self._n
        if len(slots):
            keys, digests, homes = n.unstable_entries(slots)
            n.out.send(Kind.WITHDRAW, homes, digests, keys)

    def _in_unstable_tree(self, slots: Slots) -> Slots:
        return slots[np.flatnonzero((self._n.table.state[slots] & IN_UNSTABLE_TREE) != 0)]

    def _tell_contents(self, slots: Slots, digests: Digests) -> None:
        """Tell the unstable tree's homes what these pages hold now."""
        n = self._n
        if len(slots):
            keys, old, homes = n.unstable_entries(slots)
            n.out.send(Kind.WAIT_CONTENT, homes, old, keys, digests)

    def tell_gone(self, slots: Slots) -> None:
        """Tell the unstable tree's homes that these pages have no frames, or are not mergeable."""
        n, slots = self._n, self._in_unstable_tree(slots)
        if len(slots):
            keys, digests, homes = n.unstable_entries(slots)
            n.out.send(Kind.WAIT_FRAME, homes, digests, keys, np.full(len(keys), -1))

    def tell_back(self, slots: Slots) -> None:
        """Tell the unstable tree's homes that unchanged pages are mergeable again."""
        self._allocator.tell_frames(slots[(self._n.table.state[slots] & PRESENT) != 0])

    def _ksm_pages(self, slots: Slots) -> int:
        """Return how many of these pages are KSM pages, in the page table or in the swap cache."""
        n = self._n
        ptes = n.table.pte[slots]
        cached = n.swap.frame_of(ptes[ptes <= PTE_SWAP])
        mapped = np.count_nonzero(n.table.state[slots] & KSM)
        return int(mapped + np.count_nonzero((cached >= 0) & is_ksm_word(cached)))

    def unmap(self, slots: Slots, *, keep: int = 0) -> FrameWords:
        """Unmap pages, and return their frames, which still count these mappings.

        `keep` is that of `PageTable.unmap`.
        """
        n = self._n
        if n.huge_pages.used:
            self._huge.leave(slots)
        pte = n.table.unmap(slots, keep=keep)
        cached = n.swap.put(pte[pte <= PTE_SWAP])
        n.out.send(Kind.UNPIN, node_of_frame(cached), cached)
        return pte[pte >= 0]

    def _make_exclusive(self, slots: Slots) -> Bool:
        """Make those of these pages exclusive that may be written in place, and return which they are."""
        table = self._n.table
        exclusive = np.ones(len(slots), np.bool_)
        shared = rows_with(table.state[slots], SHARED)
        exclusive[shared] = self._last_mappings(slots[shared])
        table.set_exclusive(slots[exclusive])
        return exclusive

    def _last_mappings(self, slots: Slots) -> Bool:
        """Return which entries are the last of frames that others mapped, too."""
        n, table = self._n, self._n.table
        frames = table.pte[slots]
        here = on_node(frames, n.id)
        last: Bool = n.swap.entries_of(frames) == 0
        last[here] &= n.frames.mapcount[pfn_of(frames[here])] == 1
        if not here.all():
            last[~here] &= self._mappers(frames[~here]) == 1
        outside = np.zeros(len(slots), np.bool_)
        if table.initial_frames is not None:
            initial = rows_with(table.state[slots], INITIAL_FRAME)
            outside[initial] = table.initial_frames.outside(slots[initial])
        huge = np.flatnonzero(is_huge_word(frames) & ~outside)
        if len(huge):
            last[huge] = self._huge.reused(slots[huge])
        return last & ~outside

    def _mappers(self, frames: FrameWords) -> I64:
        """Return how many entries of this node map each of these frames, which a fork shared."""
        table = self._n.table
        mapped = table.pte[rows_with(table.state[: table.size], SHARED)]
        known, mappers = np.unique(mapped, return_counts=True)
        of_frames: I64 = mappers[np.searchsorted(known, frames)]
        return of_frames

    def _overwrite(self, slots: Slots, ids: U64, digests: Digests) -> None:
        n = self._n
        frames = n.table.pte[slots]
        here = on_node(frames, n.id)
        n.frames.write(pfn_of(frames[here]), ids[here], digests[here])
        away = frames[~here]
        n.out.send(Kind.SET_CONTENT, node_of_frame(away), away, ids[~here])

    # Frames.

    def put(self, frames: FrameWords) -> None:
        """Drop one mapping of each frame; frames may repeat."""
        n = self._n
        here = on_node(frames, n.id)
        self.on_put(frames[rows_where(here)])
        away = frames[np.flatnonzero(~here)]
        n.out.send(Kind.PUT, node_of_frame(away), away)

    def add_outside_mappers(self, slots: Slots, mappers: I64) -> None:
        """Note that processes outside the simulated ones map the frames of these pages so many times.

        Such a frame stays in use whatever ksmd does, and a write to the page copies it.
        """
        self._n.table.set_shared(slots)
        frames = self._n.table.pte[slots]
        self._n.out.send(Kind.GET, node_of_frame(frames), frames, mappers)

    def on_put(self, frames: FrameWords) -> None:
        self._tell_stale(frames, self._n.frames.put(pfn_of(frames)))

    def on_get(self, frames: FrameWords, count: I64) -> None:
        self._n.frames.get(pfn_of(frames), count)

    def on_pin(self, frames: FrameWords) -> None:
        self._n.frames.pin(pfn_of(frames))

    def on_unpin(self, frames: FrameWords) -> None:
        self._tell_stale(frames, self._n.frames.unpin(pfn_of(frames)))

    def _tell_stale(self, frames: FrameWords, stale: Pfns) -> None:
        """Tell the trees which KSM frames were freed; the words say their generation."""
        if len(stale) == 0:
            return
        n = self._n
        words = frames[np.isin(pfn_of(frames), stale)]
        words = words[np.unique(words, return_index=True)[1]]
        digests = n.frames.content[pfn_of(words)]
        n.send_to_trees(Kind.STALE, n.home_of_frames(digests, words), words, digests, words)

    def tell_cached(self) -> None:
        """Ask the nodes of KSM frames that are in use without mappings whether any process maps them."""
        cached = self._n.swap.cached
        frames = cached[(cached >= 0) & is_ksm_word(cached)]
        failed = self._n.failed.ksm_frames()
        frames = np.union1d(frames, failed[on_node(failed, self._n.id)])
        self._n.out.send(Kind.CACHED, node_of_frame(frames), frames)

    def on_cached(self, frames: FrameWords) -> None:
        n = self._n
        frames = frames[n.frames.mapcount[pfn_of(frames)] == 0]
        digests = n.frames.content[pfn_of(frames)]
        n.send_to_trees(Kind.UNMAPPED, n.home_of_frames(digests, frames), frames, digests, frames)

    def on_set_content(self, frames: FrameWords, ids: U64) -> None:
        n = self._n
        n.frames.write(pfn_of(frames), ids, n.contents.digests(ids))

    # Swap.

    def page_out(self, slots: Slots) -> None:
        """Write pages to swap that have one mapping, if reverse mapping finds it (MADV_PAGEOUT)."""
        n, table = self._n, self._n.table
        state = table.state[slots]
        slots = slots[((state & PRESENT) != 0) & ((state & ORPHAN) == 0) & ~n.stays(slots)]
        if n.huge_pages.used:
            slots = slots[self._huge.only_mapper(slots)]
        ksm = (table.state[slots] & KSM) != 0
        reached = ~ksm
        reached[ksm] = found(n, slots[ksm])
        slots = slots[reached]
        frames = table.pte[slots]
        n.out.send(Kind.SWAP_REQUEST, node_of_frame(frames), slots, n.keys_of(slots), frames)

    def on_swap_request(self, slots: Slots, keys: ItemKeys, frames: FrameWords) -> None:
        n = self._n
        alone = n.frames.mapcount[pfn_of(frames)] == 1
        slots, keys, frames = slots[alone], keys[alone], frames[alone]
        n.out.send(Kind.SWAP_REPLY, node_of_key(keys), slots, frames, *n.frames.read(pfn_of(frames)))

    def on_swap_reply(
        self, slots: Slots, frames: FrameWords, digests: Digests, pages: U8 | None = None
    ) -> None:
        n = self._n
        entries = n.swap.entries_of(frames)
        new = entries == 0
        entries[new] = n.swap.add(digests[new], None if pages is None else pages[new])
        n.swap.hold(entries[~new])
        n.swap.cache(entries[~new], np.full(int((~new).sum()), -1))
        n.out.send(Kind.UNPIN, node_of_frame(frames[~new]), frames[~new])
        self._huge.split_pmds(slots)
        self.tell_gone(slots)
        self.touched(slots)
        self.put(self.unmap(slots))
        n.table.set_swap_entries(slots, entries)

    def swap_in(self, slots: Slots) -> None:
        """Bring pages back from the swap cache or from swap (do_swap_page())."""
        n = self._n
        entries = n.table.pte[slots]
        cached = n.swap.frame_of(entries)
        mapped = cached >= 0
        # ksm_might_need_to_copy(): a KSM frame without its stable node may not be mapped.
        copied = mapped & n.orphans.among(cached)
        n.counters["ksm_swpin_copy"] += int(np.count_nonzero(copied))
        self.touched(slots)
        self._map_cached(slots[mapped & ~copied], entries[mapped & ~copied], cached[mapped & ~copied])
        self._allocator.copy(slots[~mapped | copied], entries[~mapped | copied])

    def _map_cached(self, slots: Slots, entries: I64, frames: FrameWords) -> None:
        n, ksm = self._n, is_ksm_word(frames)
        n.table.map_cached(slots[~ksm], frames[~ksm])
        n.table.map_ksm_frames(slots[ksm], frames[ksm], n.swap.read(entries[ksm])[0])
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))
        self._allocator.tell_frames(slots)
        unpinned = n.swap.put(entries)
        n.out.send(Kind.UNPIN, node_of_frame(unpinned), unpinned)
