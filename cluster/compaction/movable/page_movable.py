"""PageMovable: the mark that drivers set on their pages, and the pages that look movable to a scanner."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import Pfns
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LRU, PG_UNEVICTABLE, PageMap


def set_page_movable(memory: Memory, pfns: Pfns, owner: int) -> None:
    """Mark locked pages as movable by the operations registered as `owner` (__SetPageMovable). int64[n].

    Raises PageStateError for pages that are not locked.
    """
    memory.pages.set_movable(pfns, owner)


def clear_page_movable(memory: Memory, pfns: Pfns) -> None:
    """Take the operations from locked pages (__ClearPageMovable). int64[n].

    The tag bits stay, so that the VM knows the page. Raises PageStateError for pages that are not locked.
    """
    memory.pages.clear_movable(pfns)


def release(memory: Memory, pfns: Pfns, *, keep: bool = False) -> None:
    """Give up locked pages of a driver: not movable any more and, unless `keep`, its reference dropped."""
    memory.pages.clear_movable(pfns)
    if not keep:
        memory.pages.unlock(pfns)
        memory.put(pfns)


def isolatable(pages: PageMap, start: int, stop: int, mode: IsolateMode) -> Pfns:
    """Return the pages of start..stop-1 that look movable without their locks, ascending. int64[n]."""
    found = pages.page_movable_peek(slice(start, stop))
    flags = pages.flags[start:stop]
    if np.count_nonzero(flags):
        found &= flags & PG_ISOLATED == 0
        found |= flags & PG_LRU != 0
        if not mode & IsolateMode.UNEVICTABLE:
            found &= flags & PG_UNEVICTABLE == 0
    return found.nonzero()[0] + start


def still_movable(pages: PageMap, pfns: Pfns) -> Pfns:
    """Return the pages that still look movable, of pages that did before. int64[n] -> int64[0..n]."""
    movable = pages.page_movable_peek(pfns) | (pages.flags[pfns] & PG_LRU != 0)
    return pfns if np.count_nonzero(movable) == len(pfns) else pfns[movable]


def isolated(pages: PageMap, start: int, stop: int) -> int:
    """Return how many pages of start..stop-1 are isolated."""
    return int(np.count_nonzero(pages.flags[start:stop] & PG_ISOLATED))


def unmovable(pages: PageMap, start: int, end: int) -> Pfns:
    """Return the used pages that are neither on the LRU nor look movable (has_unmovable_pages). int64[n]."""
    used = pages.refcount[start:end] > 0
    movable = pages.page_movable_peek(slice(start, end)) | (pages.flags[start:end] & PG_LRU != 0)
    return np.flatnonzero(used & ~movable) + start
