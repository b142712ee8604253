"""Pages on the LRU lists, which need no driver."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, Bool, Pfns
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.wire.rmap_walks import NO_WALKS

LRU = "lru"  #: name of LRU pages among the drivers of a report


class LruPages:
    """An owner of pages on the LRU lists: off the list while isolated, copied when migrated.

    Registered like a driver; its pages carry PG_lru and mapping words of other tags.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.owner = memory.register(self)
        self.isolated = 0  #: isolations granted so far
        self.walks = NO_WALKS  #: over KSM frames among the pages, in attempts to move them

    @property
    def owners(self) -> dict[str, int]:
        """Owner numbers by the names of their pages in reports."""
        return {LRU: self.owner}

    def adopt(self, pfns: Pfns, tag: int) -> None:
        """Add these used pages to the LRU lists; `tag`: PAGE_MAPPING_ANON or another. int64[n]."""
        self.memory.pages.add_to_lru(pfns, self.owner, tag)

    def make_evictable(self, pfns: Pfns) -> None:
        """Let those of these pages that are unevictable move like others. int64[n]."""
        self.memory.pages.make_evictable(pfns)

    def adopt_folios(self, heads: Pfns, order: int, tag: int) -> None:
        """Add large folios of used pages, which start at these pages, to the LRU lists. int64[n]."""
        if len(heads):
            self.memory.pages.make_folios(heads, order, self.owner, tag)

    def isolate_page(self, pages: Pfns, mode: IsolateMode) -> Bool:
        self.memory.pages.isolate_lru(pages)
        self.isolated += len(pages)
        return np.ones(len(pages), np.bool_)

    def migrate_page(self, newpages: Pfns, pages: Pfns, mode: MigrateMode) -> I64:
        self.memory.pages.copy_lru(newpages, pages)
        return np.zeros(len(pages), np.int64)

    def predict_retries(self, pages: Pfns, mode: MigrateMode) -> I64 | None:
        return np.zeros(len(pages), np.int64)

    def tried(self, pages: Pfns, times: I64) -> None:
        """Change nothing: LRU pages move at the first attempt."""

    def putback_page(self, pages: Pfns) -> None:
        self.memory.pages.putback_lru(pages)
