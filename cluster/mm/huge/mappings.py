"""Page faults in memory with huge pages, and what unmapping a part of one does."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in, rows_with
from cluster.arrays.words import HUGE_SIZE, I64, Bool, FrameWords, Slots, block_of, mm_of_key
from cluster.mm.huge.allocate import Allocated, HugeAllocator, slots_of, words_of
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_state import HUGE, PTE_NONE, PTE_ZERO, SHARED


class HugeMappings:
    """Maps and unmaps huge pages and parts of them. Slots in arguments are distinct."""

    def __init__(self, node: NodeState, allocator: PageAllocator, huge_allocator: HugeAllocator) -> None:
        self._n = node
        self._allocator = allocator
        self._huge_allocator = huge_allocator

    # Faults.

    def fault_in(self, slots: Slots, then: Allocated) -> None:
        """Allocate huge pages for those of these pages that a write fault gives one.

        Calls `then` with bases and frames, perhaps in a later step (do_huge_pmd_anonymous_page()).
        """
        n = self._n
        bases = self._empty_bases(slots)
        if n.profile.huge_zero_page_cow and len(n.huge_pages.zero):
            of = np.unique(n.bases_of(slots[n.table.pte[slots] == PTE_ZERO]))
            zero = of[is_in(of, n.huge_pages.zero)]
            n.huge_pages.unmap(zero)
            n.table.unmap(slots_of(zero))
            bases = np.union1d(bases, zero)
        if len(bases):
            self._huge_allocator.allocate(bases, self._allocator.first_nodes(bases), then)

    def install(self, bases: Slots, first: FrameWords) -> None:
        """Map huge pages where nothing is mapped."""
        slots = slots_of(bases)
        self._n.table.map_huge(slots, words_of(first))
        self._n.huge_pages.map(bases)
        self._n.huge_pages.deferred.difference_update(block_of(first).tolist())
        # Pages that were there before may still be in the unstable tree.
        self._allocator.tell_frames(slots)

    def install_part(self, slots: Slots, first: int) -> None:
        """Map frames of a huge page from the first on, one by one."""
        n, frames = self._n, first + np.arange(len(slots))
        n.table.map_huge(slots, frames)
        n.huge_pages.used = True
        self._allocator.tell_frames(slots)
        block, deferred = int(block_of(frames)[0]), n.huge_pages.deferred
        (deferred.add if len(slots) < HUGE_SIZE else deferred.discard)(block)

    def map_zero(self, slots: Slots) -> None:
        """Map the huge zero page at untouched pages that are read."""
        n = self._n
        bases = self._empty_bases(slots)
        if len(bases):
            self._allocator.first_nodes(bases)
            n.counters["thp_zero_page_alloc"] += len(n.huge_pages.zero) == 0
            n.huge_pages.map_zero(bases)
            n.table.map_zero_page(slots_of(bases))

    def _empty_bases(self, slots: Slots) -> Slots:
        """Return the bases of untouched slots at which a fault maps a huge page."""
        n = self._n
        slots = slots[n.table.pte[slots] == PTE_NONE]
        if len(slots) == 0:
            return slots
        bases = np.unique(n.bases_of(slots))
        bases = bases[np.array([self._may_be_huge(base) for base in bases.tolist()], np.bool_)]
        none = (n.table.pte[slots_of(bases)].reshape(-1, HUGE_SIZE) == PTE_NONE).all(axis=1)
        none &= ~np.isin(bases, list(n.huge_pages.tables))
        empty_bases: Slots = bases[none]
        return empty_bases

    def _may_be_huge(self, base: int) -> bool:
        """Return whether a fault may map a huge page at 512 slots."""
        n, index = self._n, self._n.spaces.index
        if base < 0:
            return False
        vma = index.vmas[index.by_slot[index.vma_of(np.array([base]))[0]]]
        start = vma.start + base - vma.slot0
        return n.spaces.mms[vma.mm].anon_vmas.may_be_huge(start, start + HUGE_SIZE)

    # Copy-on-write.

    def reused(self, slots: Slots) -> Bool:
        """Return which pages of huge pages, shared by a fork once, a write may use as they are. bool[n].

        Where a PMD maps the whole, the write makes all of it exclusive (do_huge_pmd_wp_page()).
        """
        n, table = self._n, self._n.table
        of = block_of(table.pte[slots])
        rows = rows_with(table.state[: table.size], HUGE)
        blocks = block_of(table.pte[rows])
        there = np.isin(blocks, of)
        rows, blocks = rows[there], blocks[there]
        mms = mm_of_key(n.keys_of(rows))
        order = np.lexsort((mms, blocks))
        blocks, mms = blocks[order], mms[order]
        reused: Bool = ~np.isin(of, blocks[1:][(blocks[1:] == blocks[:-1]) & (mms[1:] != mms[:-1])])
        by_pmd = n.huge_pages.by_pmd(n.bases_of(slots))
        if not n.profile.reuse_of_huge_page:
            several = blocks[1:][blocks[1:] == blocks[:-1]]
            reused &= by_pmd | ~np.isin(of, several)
            reused[_last_mappings(of, blocks)] = True
        whole = slots_of(np.unique(n.bases_of(slots[reused & by_pmd])))
        table.set_exclusive(whole[(table.state[whole] & SHARED) != 0])
        return reused

    def only_mapper(self, slots: Slots) -> Bool:
        """Return which pages are small, or part of huge pages that no other process maps. bool[n]."""
        table = self._n.table
        only: Bool = np.ones(len(slots), np.bool_)
        huge = np.flatnonzero((table.state[slots] & HUGE) != 0)
        of = block_of(table.pte[slots[huge]])
        rows = rows_with(table.state[: table.size], HUGE)
        rows = rows[np.isin(block_of(table.pte[rows]), of)]
        frames, mappers = np.unique(table.pte[rows], return_counts=True)
        only[huge] = ~np.isin(of, block_of(frames[mappers > 1]))
        return only

    # Unmapping.

    def split_pmds(self, slots: Slots) -> None:
        """Replace the PMDs that map these pages by page tables (__split_huge_pmd())."""
        n = self._n
        if n.huge_pages.used and len(slots):
            n.counters["thp_split_pmd"] += n.huge_pages.unmap(np.unique(n.bases_of(slots)))

    def leave(self, slots: Slots) -> None:
        """Note that these pages are about to be unmapped; a PMD that maps others too is split."""
        n, table = self._n, self._n.table
        huge = (table.state[slots] & HUGE) != 0
        part = slots[huge | (table.pte[slots] == PTE_ZERO)] if len(n.huge_pages.zero) else slots[huge]
        if len(part) == 0:
            return
        bases, count = np.unique(n.bases_of(part), return_counts=True)
        n.counters["thp_split_pmd"] += n.huge_pages.unmap(bases[count < HUGE_SIZE])
        n.huge_pages.unmap(bases[count == HUGE_SIZE])
        self._defer(slots[huge])

    def keep_tables(self, slots: Slots) -> None:
        """Note which page tables stay when a system call unmaps these pages of one VMA."""
        n, tables = self._n, self._n.huge_pages.tables
        if len(slots) == 0 or not n.spaces.index.any_huge:
            return
        bases, count = np.unique(n.bases_of(slots), return_counts=True)
        whole = count == HUGE_SIZE
        if n.profile.frees_page_tables:
            tables.difference_update(bases[whole & ~n.huge_pages.by_pmd(bases)].tolist())
            bases = bases[~whole]
        else:
            bases = bases[~(whole & n.huge_pages.by_pmd(bases))]
        tables.update(base for base in bases.tolist() if self.has_table(base))

    def has_table(self, base: int) -> bool:
        """Return whether 512 slots that no PMD maps have a page table."""
        n = self._n
        slots = np.arange(max(base, 0), base + HUGE_SIZE)
        if base in n.huge_pages.tables:
            return True
        index = n.spaces.index
        keys = index.keys(slots[:1], index.vma_of(slots[:1])) + (HUGE_SIZE - 1)
        inside = base >= 0 and index.slots(keys)[0] == slots[-1]
        return bool(inside and (n.table.pte[slots] != PTE_NONE).any())

    def _defer(self, slots: Slots) -> None:
        """Queue huge pages of which a page loses its last mapping while others keep theirs."""
        table = self._n.table
        others = rows_with(table.state[: table.size], HUGE)
        others = others[~np.isin(others, slots)]
        slots = slots[np.isin(block_of(table.pte[slots]), block_of(table.pte[others]))]
        shared = (table.state[slots] & SHARED) != 0
        last = slots[~(shared & np.isin(table.pte[slots], table.pte[others]))]
        self.defer(set(block_of(table.pte[last]).tolist()))

    def defer(self, blocks: set[int]) -> None:
        """Put blocks into the deferred split queue."""
        n = self._n
        n.counters["thp_deferred_split_page"] += len(blocks - n.huge_pages.deferred)
        n.huge_pages.deferred |= blocks


def _last_mappings(written: I64, mapped: I64) -> I64:
    """Return the last page written of each block of which all mapped pages are written, by its place.

    written, mapped: the block of each page; `mapped` ascends. The copies before leave one mapping.
    """
    blocks, from_end, count = np.unique(written[::-1], return_index=True, return_counts=True)
    there = np.searchsorted(mapped, blocks, "right") - np.searchsorted(mapped, blocks, "left")
    last: I64 = len(written) - 1 - from_end[count == there]
    return last
