"""Pageblocks from which nothing is allocated while they are emptied (mm/page_isolation.c)."""

from __future__ import annotations

from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.page_movable import unmovable
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, MigrateType


def isolate_pageblocks(memory: Memory, start: int, end: int) -> list[int] | None:
    """Stop allocations from the pageblocks of pages start..end-1; return the types that they had.

    None, and no change, if a page in them can never move, or they are being emptied already
    (start_isolate_page_range).
    """
    if len(unmovable(memory.pages, start, end)):
        return None
    blocks = slice(start >> PAGEBLOCK_ORDER, end >> PAGEBLOCK_ORDER)
    types: list[int] = memory.pages.pageblock_type[blocks].tolist()
    if MigrateType.ISOLATE in types:
        return None
    memory.forget_lists()
    memory.pages.set_pageblock_type(blocks, MigrateType.ISOLATE)
    return types


def undo_isolate_pageblocks(memory: Memory, start: int, types: list[int], rules: CompactionRules) -> None:
    """Give the pageblocks from `start` on their types back or make them MOVABLE (undo_isolate_page_range)."""
    first = start >> PAGEBLOCK_ORDER
    memory.forget_lists()
    after = types if rules.isolation_keeps_type else MigrateType.MOVABLE
    memory.pages.set_pageblock_type(slice(first, first + len(types)), after)
