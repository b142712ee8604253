"""Where the free blocks of a start state lie, and which other pages can move: drawn from a seed.

Free memory of a node is a forest: an aligned block of 2^10 pages is free, or has used pages and two halves,
and so on down to single pages. Of two halves of a block with used pages, at most one is free as a whole;
otherwise they would be one free block. So free blocks of order k are drawn from the blocks of order k + 1
with used pages, one half of each, and the blocks of order k with used pages are all other halves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import U8, Pfns
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


def misfit(start: StartSpec, size: int) -> str:
    """Return why the free blocks cannot lie in a node of `size` pages; empty if they can."""
    counts = np.array([start.free_blocks])
    whole, rest = divmod(size >> PAGEBLOCK_ORDER, 2)
    tens, nines = counts[:, MAX_ORDER].sum(), counts[:, PAGEBLOCK_ORDER].sum()
    if tens > whole:
        return _too_many(tens, MAX_ORDER)
    if nines > whole - tens + rest:
        return _too_many(nines, PAGEBLOCK_ORDER)
    with_used = [2 * (whole - tens) + rest - nines]
    for of_type, blocks in zip(counts.tolist(), with_used, strict=True):
        for order in reversed(range(PAGEBLOCK_ORDER)):
            if of_type[order] > blocks:
                return _too_many(of_type[order], order)
            blocks = 2 * blocks - of_type[order]
    return ""


def _too_many(count: int, order: int) -> str:
    beside = " beside the larger ones" if order < MAX_ORDER else ""
    return f"{count:,} free blocks of order {order} do not fit{beside}"


def draw_start(start: StartSpec, size: int, kernel: float, rng: np.random.Generator) -> StartState:
    """Draw the state of a node of `size` pages, whole pageblocks, in which the free blocks fit.

    The kernel has about the part `kernel` of the used pages, in pageblocks of its own.
    """
    free, used = _draw_free(start, size, rng)
    own = _kernel_blocks(np.bincount(used >> PAGEBLOCK_ORDER, minlength=size >> PAGEBLOCK_ORDER), kernel, rng)
    types = np.full(size >> PAGEBLOCK_ORDER, MigrateType.MOVABLE, np.uint8)
    types[own] = MigrateType.UNMOVABLE
    of_kernel = types[used >> PAGEBLOCK_ORDER] != MigrateType.MOVABLE
    return StartState(free, used[of_kernel], used[~of_kernel], types)


def _draw_free(start: StartSpec, size: int, rng: np.random.Generator) -> tuple[Pfns, Pfns]:
    """Return the free and the used pages, ascending."""
    counts = start.free_blocks
    roots = np.arange(0, size, 1 << MAX_ORDER)
    whole = roots[roots + (1 << MAX_ORDER) <= size]
    heads = rng.choice(whole, counts[MAX_ORDER], replace=False)
    free = [_pages(heads, MAX_ORDER)]
    blocks = np.setdiff1d(roots, heads)
    for order in reversed(range(MAX_ORDER)):
        heads, blocks = _halve(blocks, order, counts[order], size, rng)
        free.append(_pages(heads, order))
    return np.sort(np.concatenate(free)), np.sort(blocks)


def _halve(blocks: Pfns, order: int, count: int, size: int, rng: np.random.Generator) -> tuple[Pfns, Pfns]:
    """Halve blocks of 2^(order + 1) pages with used pages; of `count`, drawn at random, a half is free.

    Return these halves, and the halves with used pages. The last block may have its first half alone.
    """
    half = 1 << order
    drawn = rng.choice(len(blocks), count, replace=False)
    chosen = blocks[drawn]
    second = (rng.integers(2, size=count) == 1) & (chosen + half < size)
    others = np.delete(blocks, drawn)
    used = np.concatenate([np.where(second, chosen, chosen + half), others, others + half])
    return chosen + half * second, used[used < size]


def _pages(heads: Pfns, order: int) -> Pfns:
    return pages_of(heads, np.full(len(heads), 1 << order))


def _kernel_blocks(used: Pfns, part: float, rng: np.random.Generator) -> Pfns:
    """Draw pageblocks with about this part of all used pages. used int64[pageblocks]: used pages of each."""
    blocks = rng.permutation(np.flatnonzero(used))
    middles = np.cumsum(used[blocks]) - used[blocks] / 2
    own: Pfns = blocks[middles < part * used.sum()]
    return own
