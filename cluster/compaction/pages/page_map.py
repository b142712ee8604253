"""The pages of one node's memory as a structure of arrays (`struct page`, include/linux/mm_types.h).

Array index = page frame number. A *kind* is one byte, the letter under which a page is shown in a map of the
memory; what a page may do follows from its mapping word and its flags, never from its kind.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from cluster.arrays.words import I64, U8, U64, Bool
from cluster.mm.frames import PAGE_MAPPING_FLAGS, PAGE_MAPPING_MOVABLE

MAX_ORDER = 10  #: largest order of a free block
PAGEBLOCK_ORDER = 9
PAGEBLOCK_PAGES = 1 << PAGEBLOCK_ORDER
MAX_BLOCK_PAGES = 1 << MAX_ORDER

# `PageMap.order` of a page that is no head of a free block
USED = -1  #: not free
TAIL = -2  #: inside a free block

# page flags
PG_LOCKED = 0x01
PG_ISOLATED = 0x08
PG_LRU = 0x10
PG_UNEVICTABLE = 0x20

OWNER_SHIFT = 2  #: the mapping word above its tag bits: number of the owner's operations, 0 for none


class Kind:
    """Letters of a memory map."""

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
    """One element a page; `count` pages.

    kind uint8, mapping uint32 (owner << 2 | tag bits), flags uint8, refcount int32, content uint64 (what the
    page holds, in one word), order int8 (order of the free block that starts here, TAIL, or USED). One
    element a pageblock: pageblock_type uint8, skip bool (PB_migrate_skip). One element for 1024 pages: stale
    bool (what was freed among them is not merged yet).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        blocks = -(-count // MAX_BLOCK_PAGES)
        size = blocks * MAX_BLOCK_PAGES
        self.kind: U8 = np.full(count, Kind.HOLE, np.uint8)
        self.mapping = np.zeros(count, np.uint32)
        self.flags: U8 = np.zeros(count, np.uint8)
        self.refcount = np.zeros(count, np.int32)
        self.content: U64 = np.zeros(count, np.uint64)
        self.order = np.full(size, USED, np.int8)
        self.pageblock_type: U8 = np.full(2 * blocks, MigrateType.MOVABLE, np.uint8)
        self.skip: Bool = np.zeros(2 * blocks, np.bool_)
        self.stale: Bool = np.zeros(blocks, np.bool_)

    def set_free(self, free: Bool) -> None:
        """At the beginning, before there are zones: these pages are free, all others in use. bool[count]."""
        self.order[: self.count] = np.where(free, np.int8(0), np.int8(USED))
        self.refcount[:] = ~free
        self.kind[free] = Kind.FREE
        self.stale[:] = True
        self.merge(0, self.count)

    def page_movable_peek(self, pfns: I64 | slice) -> Bool:
        """__PageMovable(): the tag bits without the lock; what it says may be out of date."""
        result: Bool = (self.mapping[pfns] & PAGE_MAPPING_FLAGS) == PAGE_MAPPING_MOVABLE
        return result

    def page_movable(self, pfns: I64) -> Bool:
        """PageMovable(): tagged, and with operations. Certain only while the pages are locked."""
        words = self.mapping[pfns]
        result: Bool = (words & PAGE_MAPPING_FLAGS == PAGE_MAPPING_MOVABLE) & (words >> OWNER_SHIFT != 0)
        return result

    def locked(self, pfns: I64) -> Bool:
        """Which pages are locked."""
        result: Bool = (self.flags[pfns] & PG_LOCKED) != 0
        return result

    def any_flag(self, pfns: I64, flag: int) -> bool:
        """Has one of these pages this flag?"""
        return bool(np.count_nonzero(self.flags[pfns] & flag))

    def map_bytes(self) -> bytes:
        """One letter a page: free ones `.`, those taken from the buddy lists but not used yet `f`."""
        kind = np.where(self.kind == Kind.FREE, np.uint8(Kind.LIMBO), self.kind)
        return np.where(self.order[: self.count] == USED, kind, np.uint8(Kind.FREE)).tobytes()

    def merge(self, first: int, last: int) -> None:
        """Merge the free pages of stale 1024-page blocks that touch pfns first..last-1."""
        lo, hi = first >> MAX_ORDER, -(-last // MAX_BLOCK_PAGES)
        touched = self.stale[lo:hi]
        if not np.count_nonzero(touched):
            return
        stale = touched.nonzero()[0] + lo
        blocks = self.order.reshape(-1, MAX_BLOCK_PAGES)
        blocks[stale] = _merged(blocks[stale] != USED)
        self.stale[stale] = False


def _merged(free: Bool) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """`PageMap.order` of whole blocks from which of their pages are free. bool[n, 1024] -> int8[n, 1024]."""
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
