"""What holds of the pages of a node between two steps of the state machines that move them."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import Bool
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import PageStateError
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    OWNER_SHIFT,
    PG_ISOLATED,
    PG_LRU,
    USED,
    PageMap,
    merged_order,
    pages_of_blocks,
)


def validate(memory: Memory) -> None:
    """Raise PageStateError if a page is in a state that no legal transition of `PageMap` leads to."""
    _validate_pages(memory.pages)
    for zone in memory.zones:
        free = int(np.count_nonzero(memory.pages.order[zone.start : zone.end] != USED))
        if free != zone.free_pages:
            raise PageStateError(f"zone {zone.name} has {free} free pages, but counts {zone.free_pages}")


def _validate_pages(pages: PageMap) -> None:
    free = pages.order[: pages.count] != USED
    isolated, lru = pages.flags & PG_ISOLATED != 0, pages.flags & PG_LRU != 0
    broken = {
        "free, but with a reference": free & (pages.refcount != 0),
        "free, but with flags": free & (pages.flags != 0),
        "free, but with an owner": free & (pages.mapping != 0),
        "with less than no reference": pages.refcount < 0,
        "with flags, but no reference": (pages.flags != 0) & (pages.refcount == 0),
        "isolated, but without a tag": isolated & (pages.mapping == 0),
        "isolated, but still on the LRU lists": isolated & lru,
        "on the LRU lists, but without an owner": lru & (pages.mapping >> OWNER_SHIFT == 0),
    }
    for what, which in broken.items():
        if np.count_nonzero(which):
            raise PageStateError(f"pages {what}: {np.flatnonzero(which)[:8].tolist()}")
    huge = pages_of_blocks(np.flatnonzero(pages.huge))
    if (free[huge] | lru[huge] | (pages.mapping[huge] >> OWNER_SHIFT == 0)).any():
        raise PageStateError("a huge page has pages that are free, on the LRU lists or without an owner")
    _validate_folios(pages, free, isolated | lru)
    merged = pages.order.reshape(-1, MAX_BLOCK_PAGES)[~pages.stale]
    if not np.array_equal(merged, merged_order(merged != USED)):
        raise PageStateError("free pages are not merged, though their block is not stale")


def _validate_folios(pages: PageMap, free: Bool, listed: Bool) -> None:
    """Check large folios. bool[count]: which pages are free, and which are isolated or on the LRU lists."""
    if pages.folio_order is None:
        return
    heads = np.flatnonzero(pages.folio_order)
    inside = np.setdiff1d(pages.pages_of_folios(heads), heads)
    if free[heads].any() or free[inside].any() or listed[inside].any() or not listed[heads].all():
        raise PageStateError("a large folio has free pages, or not its first page alone is on the LRU lists")
