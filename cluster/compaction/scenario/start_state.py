"""Where the free blocks of a start state lie, and which other pages can move: drawn from a seed.

Free memory of a node is a forest: an aligned block of 2^10 pages is free, or has used pages and two halves,
and so on down to single pages. Of two halves of a block with used pages, at most one is free as a whole;
otherwise they would be one free block. So free blocks of order k are drawn from the blocks of order k + 1
with used pages, one half of each, and the blocks of order k with used pages are all other halves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, U8, Pfns
from cluster.compaction.pages.buddy import pages_of
from cluster.compaction.pages.page_map import MAX_ORDER, PAGEBLOCK_ORDER, MigrateType
from cluster.spec.compaction import StartSpec


class StartState(NamedTuple):
    """Frames of a node, int64[n] each and ascending, and the migrate types of its pageblocks.

    free: free frames. kernel: frames of unmovable pages. movable: all others.
    """

    free: Pfns
    kernel: Pfns
    movable: Pfns
    pageblock_types: U8


#: The types of pageblocks in the order of `StartSpec.pageblocks`.
_TYPES = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)


def misfit(start: StartSpec, size: int) -> str:
    """Return why the free blocks cannot lie in a node of `size` pages; empty if they can."""
    counts = _counts(start)
    pageblocks = size >> PAGEBLOCK_ORDER
    if sum(start.pageblocks) > pageblocks:
        return f"{sum(start.pageblocks):,} pageblocks do not fit"
    if (counts < 0).any():
        return "more free blocks of some types than of all"
    tens, nines = counts[:, MAX_ORDER].sum(), counts[:, PAGEBLOCK_ORDER].sum()
    if tens > pageblocks // 2:
        return _too_many(tens, MAX_ORDER)
    if nines > -(-pageblocks // 2) - tens:
        return _too_many(nines, PAGEBLOCK_ORDER)
    for of_type, blocks in zip(counts.tolist(), _with_used_pages(start, pageblocks), strict=True):
        if blocks < 0:
            return _too_many(of_type[PAGEBLOCK_ORDER], PAGEBLOCK_ORDER)
        for order in reversed(range(PAGEBLOCK_ORDER)):
            if of_type[order] > blocks:
                return _too_many(of_type[order], order)
            blocks = 2 * blocks - of_type[order]
    return ""


def _too_many(count: int, order: int) -> str:
    beside = " beside the larger ones" if order < MAX_ORDER else ""
    return f"{count:,} of order {order} do not fit{beside}"


def _counts(start: StartSpec) -> I64:
    """Return the free blocks in pageblocks of each type, or of any type. int64[3 or 1, 11]."""
    if not start.pageblocks:
        return np.array([start.free_blocks], np.int64)
    unmovable, reclaimable = np.array([start.free_unmovable, start.free_reclaimable], np.int64)
    return np.array([unmovable, start.free_blocks - unmovable - reclaimable, reclaimable])


def _with_used_pages(start: StartSpec, pageblocks: int) -> list[int]:
    """Return how many pageblocks of each type, or of any type, are not free as a whole.

    Those of the node that `start` does not know are unmovable.
    """
    of_type = np.array(start.pageblocks or (0,))
    of_type[0] += pageblocks - of_type.sum()
    counts = _counts(start)
    left: list[int] = (of_type - 2 * counts[:, MAX_ORDER] - counts[:, PAGEBLOCK_ORDER]).tolist()
    return left


def draw_start(start: StartSpec, size: int, kernel: float, rng: np.random.Generator) -> StartState:
    """Draw the state of a node of `size` pages, whole pageblocks, in which the free blocks fit.

    Unless the start state says which pageblocks are the kernel's, it has about the part `kernel` of the used
    pages, in pageblocks of its own.
    """
    pageblocks, counts = size >> PAGEBLOCK_ORDER, _counts(start)
    tens, nines, blocks = _draw_large(counts, size, rng)
    groups = np.split(rng.permutation(blocks), np.cumsum(_with_used_pages(start, pageblocks))[:-1])
    free, used = [_pages(tens, MAX_ORDER), _pages(nines, PAGEBLOCK_ORDER)], []
    for group, of_type in zip(groups, counts, strict=True):
        small, rest = _draw_small(group, of_type, rng)
        free += small
        used.append(rest)
    every_used = np.sort(np.concatenate(used))
    if start.pageblocks:
        types = _types(counts, tens, nines, groups, pageblocks)
    else:
        own = _kernel_blocks(np.bincount(every_used >> PAGEBLOCK_ORDER, minlength=pageblocks), kernel, rng)
        types = np.full(pageblocks, MigrateType.MOVABLE, np.uint8)
        types[own] = MigrateType.UNMOVABLE
    of_kernel = types[every_used >> PAGEBLOCK_ORDER] != MigrateType.MOVABLE
    return StartState(np.sort(np.concatenate(free)), every_used[of_kernel], every_used[~of_kernel], types)


def _draw_large(counts: I64, size: int, rng: np.random.Generator) -> tuple[Pfns, Pfns, Pfns]:
    """Return the first pages of the free blocks of order 10 and 9, and of the other pageblocks."""
    roots = np.arange(0, size, 1 << MAX_ORDER)
    whole = roots[roots + (1 << MAX_ORDER) <= size]
    tens = rng.choice(whole, counts[:, MAX_ORDER].sum(), replace=False)
    others = np.setdiff1d(roots, tens)
    nines, blocks = _halve(others, PAGEBLOCK_ORDER, counts[:, PAGEBLOCK_ORDER].sum(), size, rng)
    return tens, nines, blocks


def _draw_small(blocks: Pfns, counts: I64, rng: np.random.Generator) -> tuple[list[Pfns], Pfns]:
    """Return the free pages of each order below 9 in these pageblocks, and the used pages."""
    free = []
    for order in reversed(range(PAGEBLOCK_ORDER)):
        heads, blocks = _halve(blocks, order, counts[order], None, rng)
        free.append(_pages(heads, order))
    return free, blocks


def _halve(
    blocks: Pfns, order: int, count: int, size: int | None, rng: np.random.Generator
) -> tuple[Pfns, Pfns]:
    """Halve blocks of 2^(order + 1) pages with used pages; of `count`, drawn at random, a half is free.

    Return these halves, and the halves with used pages. No half is beyond `size`, if given.
    """
    half = 1 << order
    drawn = rng.choice(len(blocks), count, replace=False)
    chosen = blocks[drawn]
    second = rng.integers(2, size=count) == 1
    if size is not None:
        second &= chosen + half < size
    others = np.delete(blocks, drawn)
    used = np.concatenate([np.where(second, chosen, chosen + half), others, others + half])
    return chosen + half * second, used if size is None else used[used < size]


def _pages(heads: Pfns, order: int) -> Pfns:
    return pages_of(heads, np.full(len(heads), 1 << order))


def _types(counts: I64, tens: Pfns, nines: Pfns, groups: list[Pfns], pageblocks: int) -> U8:
    """Return the types of all pageblocks. The free blocks, in the order drawn, have theirs by turns."""
    types = np.full(pageblocks, MigrateType.UNMOVABLE, np.uint8)
    of_tens, of_nines = (np.repeat(_TYPES, counts[:, order]) for order in (MAX_ORDER, PAGEBLOCK_ORDER))
    types[tens >> PAGEBLOCK_ORDER] = of_tens
    types[(tens >> PAGEBLOCK_ORDER) + 1] = of_tens
    types[nines >> PAGEBLOCK_ORDER] = of_nines
    for group, migratetype in zip(groups, _TYPES, strict=True):
        types[group >> PAGEBLOCK_ORDER] = migratetype
    return types


def _kernel_blocks(used: I64, part: float, rng: np.random.Generator) -> Pfns:
    """Draw pageblocks with about this part of all used pages. used int64[pageblocks]: used pages of each."""
    blocks = rng.permutation(np.flatnonzero(used))
    middles = np.cumsum(used[blocks]) - used[blocks] / 2
    own: Pfns = blocks[middles < part * used.sum()]
    return own
