"""Which frames each owner fills, so that owners' pages lie mixed in memory at a stated grain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES

#: Pages that an owner fills in a turn unless the scenario says otherwise.
_MOST_PAGES = 16


def default_grain(wanted: Sequence[int]) -> int:
    """Return the grain at which every pageblock gets pages of several owners.

    `wanted`: pages that each owner wants. A pageblock has at least two turns of the second-largest owner:
    the largest power of two up to 16 pages that allows it, and at least one page.
    """
    if len(wanted) < 2:
        return _MOST_PAGES
    second, total = sorted(wanted)[-2], sum(wanted)
    pages = PAGEBLOCK_PAGES * second // (2 * max(total, 1))
    return min(1 << max(pages.bit_length() - 1, 0), _MOST_PAGES)


def frames_of_owners(pfns: Pfns, wanted: Sequence[int], grain: int) -> list[Pfns]:
    """Return the frames of each owner: turns of `grain` frames, evenly spread over the ascending `pfns`.

    A turn is an aligned block, so that an owner can allocate blocks of up to `grain` pages. What does not
    fill a turn comes last: the rest of each owner, and frames that are not part of a whole block.
    """
    block = pfns // grain
    cut = np.bincount(block)[block] < grain if len(pfns) else np.zeros(0, np.bool_)
    pfns = pfns[np.argsort(cut, kind="stable")]
    owner = _owners(np.array(wanted, np.int64), grain)[: len(pfns)]
    return [pfns[: len(owner)][owner == number] for number in range(len(wanted))]


def _owners(wanted: I64, grain: int) -> I64:
    """Return the owner of each page in the order of filling. int64[owners] -> int64[sum(wanted)]."""
    turns, rest = np.divmod(wanted, grain)
    owner = np.repeat(np.arange(len(wanted)), turns)
    turn = np.arange(len(owner)) - (np.cumsum(turns) - turns)[owner]
    order = np.argsort((turn + 0.5) / turns[owner], kind="stable")
    return np.concatenate([np.repeat(owner[order], grain), np.repeat(np.arange(len(wanted)), rest)])
