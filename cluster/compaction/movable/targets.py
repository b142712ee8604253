"""New pages from the buddy allocator, for migrations that bring no targets of their own."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PG_LRU, MigrateType


class AllocatedTargets:
    """alloc_migration_target(): single MOVABLE pages; none from pageblocks that are being emptied."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take(self, count: int, owed: int = 0) -> I64:
        return self._memory.alloc_bulk(count, MigrateType.MOVABLE)

    def give_back(self, pfns: I64) -> None:
        self._memory.free(pfns)


def isolate_range(memory: Memory, start: int, end: int) -> list[int] | None:
    """start_isolate_page_range(): nothing more is allocated from these pageblocks; their types before.

    None, and no change, if a page in them can never move, or they are being emptied already.
    """
    pages = memory.pages
    if len(unmovable(memory, start, end)):
        return None
    blocks = slice(start >> PAGEBLOCK_ORDER, end >> PAGEBLOCK_ORDER)
    types: list[int] = pages.pageblock_type[blocks].tolist()
    if MigrateType.ISOLATE in types:
        return None
    pages.pageblock_type[blocks] = MigrateType.ISOLATE
    return types


def undo_isolate_range(memory: Memory, start: int, types: list[int]) -> None:
    """undo_isolate_page_range(): the pageblocks have their types again."""
    first = start >> PAGEBLOCK_ORDER
    memory.pages.pageblock_type[first : first + len(types)] = types


def unmovable(memory: Memory, start: int, end: int) -> I64:
    """has_unmovable_pages(): used pages that are neither on the LRU nor look movable. int64[n]."""
    pages = memory.pages
    used = pages.refcount[start:end] > 0
    movable = pages.page_movable_peek(slice(start, end)) | (pages.flags[start:end] & PG_LRU != 0)
    return np.flatnonzero(used & ~movable) + start
