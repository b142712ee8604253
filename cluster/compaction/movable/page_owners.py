"""Batches of pages cut by owner, as a driver is asked for its own pages only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MovableOperations
from cluster.compaction.pages.page_map import PageMap


def first_run(pages: PageMap, pfns: Pfns) -> tuple[int, Pfns]:
    """Return the mapping word of the first page, and the pages up to the first with another word."""
    words = pages.mapping[pfns]
    same = words == words[0]
    if np.count_nonzero(same) == len(pfns):
        return int(words[0]), pfns
    return int(words[0]), pfns[: int(np.argmin(same))]


def runs(pages: PageMap, pfns: Pfns) -> Iterator[tuple[int, Pfns]]:
    """Yield the mapping word and the pages of each run of pages with the same word, in order."""
    while len(pfns):
        word, run = first_run(pages, pfns)
        yield word, run
        pfns = pfns[len(run) :]


def by_owner(memory: Memory, pfns: Pfns) -> Iterator[tuple[MovableOperations | None, I64 | slice]]:
    """Yield the operations of each owner of these pages, with an index of its pages. int64[n], n > 0."""
    words = memory.pages.mapping[pfns]
    mine = seen = words == words[0]
    if np.count_nonzero(seen) == len(pfns):
        yield memory.operations_of(int(words[0])), slice(None)
        return
    while True:
        yield memory.operations_of(int(words[mine.argmax()])), mine.nonzero()[0]
        if np.count_nonzero(seen) == len(pfns):
            return
        mine = words == words[seen.argmin()]
        seen = seen | mine
