"""The pages of one node's memory as a structure of arrays (`struct page`, include/linux/mm_types.h).

`PageMap` owns the state of every page. Other modules read its arrays and change them by its methods only. The
exceptions are `content`, which belongs to the owner of the page, and the state with which a replay begins.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from cluster.arrays.words import U8, U64, Array, Bool, Pfns
from cluster.compaction.pages.movable_operations import PageStateError
from cluster.mm.frames import PAGE_MAPPING_ANON, PAGE_MAPPING_FLAGS, PAGE_MAPPING_MOVABLE

MAX_ORDER = 10  #: largest order of a free block
PAGEBLOCK_ORDER = 9
PAGEBLOCK_PAGES = 1 << PAGEBLOCK_ORDER
MAX_BLOCK_PAGES = 1 << MAX_ORDER

# `PageMap.order` of a page that is not the head of a free block
USED = -1  #: not free
TAIL = -2  #: inside a free block

# page flags
PG_LOCKED = 0x01
PG_ISOLATED = 0x08
PG_LRU = 0x10
PG_UNEVICTABLE = 0x20
_UNLOCK = np.uint8(0xFF ^ PG_LOCKED)
_UNLOCK_PUTBACK = np.uint8(0xFF ^ PG_LOCKED ^ PG_ISOLATED)
_EVICTABLE = np.uint8(0xFF ^ PG_UNEVICTABLE)
_OFF_LRU = np.uint8(0xFF ^ PG_LRU)

OWNER_SHIFT = 2  #: the mapping word above its tag bits: number of the owner's operations, 0 for none


class PageKind:
    """The letter of a page in a map of the memory. It says nothing of what a page may do."""

    FREE = ord(".")
    MOVABLE = ord("M")
    ZSMALLOC = ord("Z")
    UNMOVABLE = ord("U")
    LRU = ord("L")
    UNEVICTABLE = ord("X")
    SLAB = ord("S")
    KERNEL = ord("K")
    COMPOUND = ord("C")
    RESERVED = ord("R")
    LIMBO = ord("f")  #: not free, not used: on its way to or from the buddy lists
    HOLE = ord("-")
    POISONED = ord("H")
    BALLOON = ord("B")
    GPU = ord("G")


class MigrateType(IntEnum):
    """What a pageblock is meant for (include/linux/mmzone.h)."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    ISOLATE = 3  #: nothing is allocated from it


class PageMap:
    """The state of `count` pages; array index = page frame number.

    One element a page: kind uint8, mapping uint32 (owner << 2 | tag bits), flags uint8, refcount int32,
    content uint64 (what the page holds, in one word), order int8 (order of the free block that starts here,
    TAIL, or USED). One element a pageblock: pageblock_type uint8, skip bool (PB_migrate_skip), huge bool (its
    pages are one huge page on the LRU lists). One element for 1024 pages: stale bool (pages were freed among
    them and are not merged yet). `any_huge`: there may be huge pages.

    folio_order int8[count]: order of the large folio of LRU pages that starts here, 0 elsewhere; None as long
    as there are none. Only the first page of a folio is isolated, or on the LRU lists.

    No page of a huge page has PG_LRU or a movable tag: compaction passes over all of them.

    Legal transitions. A page is *free* (order is not USED), *used* (with a reference), or neither: a hole,
    an unused proxy, on a
    per-cpu list, or a page between `remove_free` and `mark_used`.

    | method | before | after |
    | --- | --- | --- |
    | `add_free` | used, or its last reference dropped | free; no owner, flags, references |
    | `let_go` | used, or its last reference dropped | neither; no owner, flags, references |
    | `remove_free` | free, and the whole free block with it | not free, no reference |
    | `mark_used` | not free | one reference |
    | `mark_hole` | used by the caller alone | not free, no reference, never allocated again |
    | `reset` | a proxy in use | no owner, flags, references |
    | `get`, `put` | used | one reference more, less; none left: the caller frees the page |
    | `trylock`, `lock` | used, unlocked | locked |
    | `unlock` | locked | unlocked |
    | `isolate` | locked, not isolated, the owner agrees | locked, isolated |
    | `isolate_and_unlock` | the same | unlocked, isolated |
    | `putback_and_unlock` | locked, isolated | unlocked, not isolated |
    | `finish_target` | locked target of a migration | unlocked, the kind of the page that moved there |
    | `set_movable` | locked | owned by a driver, tagged movable |
    | `clear_movable` | locked, movable | no owner; the tag stays, so that the VM knows the page |
    | `add_to_lru` | used | owned, on the LRU lists |
    | `make_evictable` | on the LRU lists | the same, not unevictable |
    | `isolate_lru`, `putback_lru` | locked, on the LRU lists; off them | off the LRU lists; on them |
    | `copy_lru` | locked target of a migration | owner, content, LRU flags of the page that moved |
    | `make_folios` | aligned blocks of used pages without owners | large folios on the LRU lists |
    | `split_folio` | a large folio, isolated | owned pages, each isolated and with the VM's reference |
    | `make_huge` | a pageblock of used pages without owners | a huge page, owned |
    | `unmake_huge` | a huge page | owned pages on no list, which the caller frees or adds to the LRU lists |

    `validate.validate` checks what holds between two steps of a state machine.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        blocks = -(-count // MAX_BLOCK_PAGES)
        size = blocks * MAX_BLOCK_PAGES
        self.kind: U8 = np.full(count, PageKind.HOLE, np.uint8)
        self.mapping = np.zeros(count, np.uint32)
        self.flags: U8 = np.zeros(count, np.uint8)
        self.refcount = np.zeros(count, np.int32)
        self.content: U64 = np.zeros(count, np.uint64)
        self.order = np.full(size, USED, np.int8)
        self.pageblock_type: U8 = np.full(2 * blocks, MigrateType.MOVABLE, np.uint8)
        self.skip: Bool = np.zeros(2 * blocks, np.bool_)
        self.huge: Bool = np.zeros(2 * blocks, np.bool_)
        self.any_huge = False
        self.folio_order: Array | None = None
        self.stale: Bool = np.zeros(blocks, np.bool_)

    def set_free(self, free: Bool) -> None:
        """Begin with these pages free and all others used, before there are zones. bool[count]."""
        self.order[: self.count] = np.where(free, np.int8(0), np.int8(USED))
        self.refcount[:] = ~free
        self.kind[free] = PageKind.FREE
        self.stale[:] = True
        self.merge(0, self.count)

    # reading

    def page_movable_peek(self, pfns: Pfns | slice) -> Bool:
        """Return which pages have the movable tag; unless locked, it may change (__PageMovable)."""
        result: Bool = (self.mapping[pfns] & PAGE_MAPPING_FLAGS) == PAGE_MAPPING_MOVABLE
        return result

    def page_movable(self, pfns: Pfns) -> Bool:
        """Return which pages a driver can move; certain only while they are locked (PageMovable)."""
        words = self.mapping[pfns]
        result: Bool = (words & PAGE_MAPPING_FLAGS == PAGE_MAPPING_MOVABLE) & (words >> OWNER_SHIFT != 0)
        return result

    def locked(self, pfns: Pfns) -> Bool:
        """Return which pages are locked. int64[n] -> bool[n]."""
        result: Bool = (self.flags[pfns] & PG_LOCKED) != 0
        return result

    def any_locked(self, pfns: Pfns) -> bool:
        return bool(np.count_nonzero(self.flags[pfns] & PG_LOCKED))

    def not_isolated(self, pfns: Pfns) -> Pfns:
        """Return the pages that are not isolated. int64[n] -> int64[0..n]."""
        isolated = self.flags[pfns] & PG_ISOLATED
        return pfns[isolated == 0] if np.count_nonzero(isolated) else pfns

    def freed(self, pfns: Pfns) -> Bool:
        """Return which of these isolated pages have no reference but the VM's: their owner freed them."""
        result: Bool = self.refcount[pfns] == 1
        return result

    def huge_pages(self, start: int, stop: int) -> int:
        """Return how many pageblocks that begin in start..stop-1 are huge pages."""
        if not self.any_huge:
            return 0
        blocks = slice(-(-start // PAGEBLOCK_PAGES), -(-stop // PAGEBLOCK_PAGES))
        return int(np.count_nonzero(self.huge[blocks]))

    def map_bytes(self) -> bytes:
        """Return one letter a page: free ones `.`, those taken from the buddy lists but not used yet `f`."""
        kind = np.where(self.kind == PageKind.FREE, np.uint8(PageKind.LIMBO), self.kind)
        return np.where(self.order[: self.count] == USED, kind, np.uint8(PageKind.FREE)).tobytes()

    # free and used

    def add_free(self, pfns: Pfns) -> None:
        self.order[pfns] = 0
        self.stale[pfns >> MAX_ORDER] = True
        self.reset(pfns)

    def remove_free(self, pfns: Pfns | slice) -> None:
        self.order[pfns] = USED

    def mark_used(self, pfns: Pfns | slice) -> None:
        self.kind[pfns] = PageKind.FREE
        self.refcount[pfns] = 1

    def mark_hole(self, start: int, end: int) -> None:
        self.refcount[start:end] = 0
        self.kind[start:end] = PageKind.HOLE

    def let_go(self, pfns: Pfns) -> None:
        """Take used pages from their owners without freeing them: they wait on a per-cpu list."""
        self.kind[pfns] = PageKind.FREE
        self.reset(pfns)

    def reset(self, pfns: Pfns) -> None:
        self.mapping[pfns] = 0
        self.flags[pfns] = 0
        self.refcount[pfns] = 0

    def split(self, pfn: int, order: int) -> None:
        """Cut the free block at pfn down to `order`; the rest stays free (expand)."""
        for k in range(order, int(self.order[pfn])):
            self.order[pfn + (1 << k)] = k
        self.order[pfn] = order

    def merge(self, first: int, last: int) -> None:
        """Merge the free pages of stale 1024-page blocks that touch pfns first..last-1."""
        lo, hi = first >> MAX_ORDER, -(-last // MAX_BLOCK_PAGES)
        touched = self.stale[lo:hi]
        if not np.count_nonzero(touched):
            return
        stale = touched.nonzero()[0] + lo
        blocks = self.order.reshape(-1, MAX_BLOCK_PAGES)
        blocks[stale] = merged_order(blocks[stale] != USED)
        self.stale[stale] = False

    def mark_stale(self, pfn: int) -> None:
        """Merge the 1024 pages around pfn again: a free block among them was cut."""
        self.stale[pfn >> MAX_ORDER] = True

    def set_kind(self, pfns: Pfns, kind: int | U8) -> None:
        self.kind[pfns] = kind

    # references

    def get(self, pfns: Pfns, count: int = 1) -> None:
        """Take `count` references of each page (get_page)."""
        self.refcount[pfns] += count

    def put(self, pfns: Pfns, count: int = 1) -> Pfns:
        """Drop `count` references of each page, given once; return the pages without any left (put_page)."""
        counts = self.refcount[pfns] - count
        self.refcount[pfns] = counts
        gone: Pfns = pfns[counts == 0]
        return gone

    # locks

    def trylock(self, pfns: Pfns) -> Pfns:
        """Lock the pages that are not locked yet; return them (trylock_page). int64[n] -> int64[0..n]."""
        if np.count_nonzero(self.flags[pfns]) == 0:
            self.flags[pfns] = PG_LOCKED
            return pfns
        pfns = pfns[~self.locked(pfns)]
        self.flags[pfns] |= PG_LOCKED
        return pfns

    def lock(self, pfns: Pfns) -> None:
        """Lock pages, none of which is locked."""
        self.flags[pfns] |= PG_LOCKED

    def lock_targets(self, pfns: Pfns) -> None:
        """Lock new pages, which have no flags."""
        self.flags[pfns] = PG_LOCKED

    def unlock(self, pfns: Pfns) -> None:
        """Unlock pages (unlock_page)."""
        self.flags[pfns] &= _UNLOCK

    # isolation and migration

    def isolate(self, pfns: Pfns) -> None:
        self.flags[pfns] |= PG_ISOLATED

    def isolate_and_unlock(self, pfns: Pfns) -> None:
        self.flags[pfns] ^= PG_ISOLATED | PG_LOCKED

    def putback_and_unlock(self, pfns: Pfns) -> None:
        self.flags[pfns] &= _UNLOCK_PUTBACK

    def finish_target(self, new: Pfns, old: Pfns) -> None:
        self.flags[new] &= _UNLOCK
        self.kind[new] = self.kind[old]

    # owners

    def set_mapping(self, pfns: Pfns, owner: int, tag: int) -> None:
        """Set the owner's number and the tag (PAGE_MAPPING_*) of these pages."""
        self.mapping[pfns] = owner << OWNER_SHIFT | tag

    def set_movable(self, pfns: Pfns, owner: int) -> None:
        """Raise PageStateError for pages that are not locked."""
        self._check_locked(pfns)
        self.mapping[pfns] = owner << OWNER_SHIFT | PAGE_MAPPING_MOVABLE

    def clear_movable(self, pfns: Pfns) -> None:
        """Raise PageStateError for pages that are not locked."""
        self._check_locked(pfns)
        self.mapping[pfns] = PAGE_MAPPING_MOVABLE

    def _check_locked(self, pfns: Pfns) -> None:
        if np.count_nonzero(self.flags[pfns] & PG_LOCKED) < len(pfns):
            raise PageStateError(f"pages not locked: {pfns[~self.locked(pfns)][:8].tolist()}")

    def add_to_lru(self, pfns: Pfns, owner: int, tag: int) -> None:
        self.set_mapping(pfns, owner, tag)
        self.flags[pfns] |= PG_LRU
        self.flags[pfns[self.kind[pfns] == PageKind.UNEVICTABLE]] |= PG_UNEVICTABLE

    def make_evictable(self, pfns: Pfns) -> None:
        self.flags[pfns] &= _EVICTABLE

    def isolate_lru(self, pfns: Pfns) -> None:
        self.flags[pfns] &= _OFF_LRU

    def putback_lru(self, pfns: Pfns) -> None:
        self.flags[pfns] |= PG_LRU

    def copy_lru(self, new: Pfns, old: Pfns) -> None:
        self.flags[new] |= (self.flags[old] & PG_UNEVICTABLE) | PG_LRU
        if self.folio_order is not None:
            heads = old
            old = self.pages_of_folios(heads)
            self.folio_order[new] = self.folio_order[heads]
            self.folio_order[heads] = 0
            new = self.pages_of_folios(new)
        self.mapping[new] = self.mapping[old]
        self.content[new] = self.content[old]

    # large folios

    def make_folios(self, heads: Pfns, order: int, owner: int, tag: int) -> None:
        """Make large folios on the LRU lists, which start at these pages. int64[n]."""
        if self.folio_order is None:
            self.folio_order = np.zeros(self.count, np.int8)
        self.folio_order[heads] = order
        self.set_mapping(self.pages_of_folios(heads), owner, tag)
        self.flags[heads] |= PG_LRU

    def folio_sizes(self, pfns: Pfns) -> Pfns:
        """Return the numbers of pages of the folios that start at these pages. int64[n] -> int64[n]."""
        if self.folio_order is None:
            return np.ones(len(pfns), np.int64)
        return np.int64(1) << self.folio_order[pfns].astype(np.int64)

    def count_pages(self, heads: Pfns) -> int:
        """Return the number of pages of the folios that start at these pages. int64[n]."""
        return len(heads) if self.folio_order is None else int(self.folio_sizes(heads).sum())

    def pages_of_folios(self, heads: Pfns) -> Pfns:
        """Return all pages of the folios that start at these pages, one after the other. int64[n]."""
        if self.folio_order is None:
            return heads
        sizes = self.folio_sizes(heads)
        ends = np.cumsum(sizes)
        pfns: Pfns = np.repeat(heads - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)
        return pfns

    def split_folio(self, head: int) -> Pfns:
        """Make single pages of an isolated folio; return them. int64[n]."""
        pfns = self.pages_of_folios(np.array([head]))
        if self.folio_order is not None:
            self.folio_order[head] = 0
        self.flags[pfns] = self.flags[head]
        self.refcount[pfns] = self.refcount[head]
        return pfns

    # huge pages

    def make_huge(self, blocks: Pfns, owner: int) -> None:
        """Make huge pages of these pageblocks, by number. int64[n]."""
        self.huge[blocks] = True
        self.any_huge = True
        pfns = pages_of_blocks(blocks)
        self.set_mapping(pfns, owner, PAGE_MAPPING_ANON)
        self.set_kind(pfns, PageKind.COMPOUND)

    def unmake_huge(self, blocks: Pfns) -> None:
        """Make single pages of huge pages. int64[n]."""
        self.huge[blocks] = False

    # pageblocks

    def set_pageblock_type(self, blocks: slice | int, types: int | U8 | list[int]) -> None:
        """Set what these pageblocks, by number, are meant for (set_pageblock_migratetype)."""
        self.pageblock_type[blocks] = types

    def set_skip(self, blocks: int | slice) -> None:
        """Hint that these pageblocks, by number, have nothing to isolate (set_pageblock_skip)."""
        self.skip[blocks] = True

    def clear_skip(self, blocks: Pfns) -> None:
        """Forget the hints of these pageblocks, by number (clear_pageblock_skip)."""
        self.skip[blocks] = False


def pages_of_blocks(blocks: Pfns) -> Pfns:
    """Return all pages of these pageblocks, by number. int64[n] -> int64[n * PAGEBLOCK_PAGES]."""
    pfns: Pfns = ((blocks << PAGEBLOCK_ORDER)[:, None] + np.arange(PAGEBLOCK_PAGES)).ravel()
    return pfns


def free_blocks_of(free: Bool, order: int) -> int:
    """Return how many aligned blocks of `order` are free as a whole. bool[n]"""
    whole = len(free) >> order << order
    return int(np.count_nonzero(free[:whole].reshape(-1, 1 << order).all(axis=1)))


def merged_order(free: Bool) -> Array:
    """Return `PageMap.order` of whole blocks with these pages free. bool[n, 1024] -> int8[n, 1024]."""
    order = np.where(free, np.int8(TAIL), np.int8(USED))
    level = free
    for k in range(MAX_ORDER):
        above = level[:, 0::2] & level[:, 1::2]
        heads = level.copy()
        heads[:, 0::2] &= ~above
        heads[:, 1::2] &= ~above
        order[:, :: 1 << k][heads] = k
        level = above
    order[level[:, 0], 0] = MAX_ORDER
    return order
