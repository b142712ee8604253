"""Searches that end at a page of zeros which the split of its huge page has taken away.

Its item stays in the unstable tree until the pass ends, and a search that meets it gives up. Zeros come
first in the order of memcmp, so the item is the leftmost one, and searches for less than what is above it
meet it. That is the least other content: nothing is inserted below an item that stops searches. Only if
something came below it before it was taken away, the shape of the tree matters, which then is worked out.
When the content above merges, the next one follows.

This needs contents in the order of memcmp (`CapturedPages.ordered`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes, is_in
from cluster.arrays.rbtree import LEFT, RIGHT, RbNode, RbTree
from cluster.arrays.words import I64, Bool, Digests, FrameWords, block_of, empty, is_huge_word
from cluster.ksm.decide.split_tries import SplitTries, ZerosGone
from cluster.ksm.trees import Trees
from cluster.ksm.visit import CANDIDATES, Arrivals
from cluster.wire.window import END, Window

#: Greater than every content.
_ALL = np.uint64((1 << 64) - 1)
#: How many contents are looked at together for the next one in the tree.
_AT_ONCE = 1024
#: In place of an index: the page of zeros.
_ZEROS = -1
#: Contents of a tree whose shape is not worked out.
_LARGE = 1 << 15


class Stopped(NamedTuple):
    """Candidates that find searches blocked."""

    #: int64[n]: indices of arrivals.
    arrivals: I64
    #: int64[m]: rows of the unstable tree's table, to be visited in this window.
    rows: I64

    def same_as(self, other: Stopped) -> bool:
        """Return whether both are the same searches."""
        return all(np.array_equal(mine, others) for mine, others in zip(self, other, strict=True))


NONE_STOPPED = Stopped(empty(), empty())


class _Candidates(NamedTuple):
    """Visits that search the unstable tree, and pages in it; by content, then by scan position."""

    digest: Digests
    pos: I64
    frame: FrameWords
    #: Index of the arrival, or ~ the row of the table.
    source: I64


def stopped_searches(
    trees: Trees, arrivals: Arrivals, window: Window, zeros: ZerosGone, tries: SplitTries | None
) -> Stopped:
    """Return which searches give up if a page of zeros in the unstable tree is gone."""
    found = _candidates(trees, arrivals, window)
    if len(found.digest) == 0:
        return NONE_STOPPED
    start = np.flatnonzero(changes(found.digest))
    contents = found.digest[start]
    least, times = _contents_above(contents, found.pos[start], _merges(found, start, tries), zeros)
    # When searches for a content begin to stop.
    when = np.append(times, END)[np.searchsorted(least, contents, "right")]
    unordered = contents >= np.uint64(trees.node.ordered_contents)
    when[unordered & (when < END)] = times[-1] if least[-1] == _ALL else END
    count = np.diff(start, append=len(found.digest))
    late = found.pos > np.repeat(when, count)
    # Contents that have merged before are found in the stable tree.
    late &= np.repeat(np.add.reduceat(~late, start) < 2, count)
    late &= found.pos >= window.low
    source = found.source[late]
    return Stopped(source[source >= 0], ~source[source < 0])


def _candidates(trees: Trees, arrivals: Arrivals, window: Window) -> _Candidates:
    unstable = trees.unstable
    rows = np.flatnonzero((unstable.dirty_pass(np.arange(len(unstable))) == 0) & (unstable.digest != 0))
    here = np.flatnonzero(CANDIDATES[arrivals.kind] & (arrivals.digest != 0))
    digest = np.concatenate([unstable.digest[rows], arrivals.digest[here]])
    pos = trees.node.position(np.concatenate([unstable["key"][rows], arrivals.key[here]]))
    frame = np.concatenate([unstable["frame"][rows], arrivals.frame[here]])
    source = np.concatenate([~rows, here])
    kept = np.flatnonzero((pos < window.high) & ~is_in(digest, trees.stable.digest))
    order = kept[np.lexsort((pos[kept], digest[kept]))]
    return _Candidates(digest[order], pos[order], frame[order], source[order])


def _merges(found: _Candidates, start: I64, tries: SplitTries | None) -> I64:
    """Return when the first page of each content merges with another one, if ever: int64[contents]."""
    first = np.repeat(start, np.diff(start, append=len(found.digest)))
    merges = (np.arange(len(first)) != first) & (found.frame != found.frame[first])
    both = is_huge_word(found.frame) & is_huge_word(found.frame[first])
    pair = np.flatnonzero(merges & both & (block_of(found.frame) == block_of(found.frame[first])))
    if tries is not None and len(pair):
        merges[pair] = tries.split_before(block_of(found.frame[pair]), found.pos[pair])
    return np.minimum.reduceat(np.where(merges, found.pos, END), start)


def _contents_above(contents: Digests, begin: I64, end: I64, zeros: ZerosGone) -> tuple[Digests, I64]:
    """Return which contents are above the page of zeros one after the other, and from when on each is.

    Contents ascend; they are in the tree from `begin` to `end`. At the end comes `_ALL` if none is above.
    """
    above: list[np.uint64] = []
    times: list[int] = []
    since, at = zeros.gone, 0
    if ((begin > zeros.inserted) & (begin < zeros.gone)).any():
        at = _first_above(begin, end, zeros)
    while since < END:
        times.append(since)
        at = _next_in_tree(begin, end, at, since)
        if at == len(contents):
            above.append(_ALL)
            break
        above.append(contents[at])
        since = int(end[at])
    return np.array(above, np.uint64), np.array(times, np.int64)


def _first_above(begin: I64, end: I64, zeros: ZerosGone) -> int:
    """Return the index of the content above the page of zeros when that is taken away; the length for none.

    In a large tree only those that are hardly above all others could be stopped besides: then 0.
    """
    into, out = np.flatnonzero(begin < zeros.gone), np.flatnonzero(end < zeros.gone)
    if len(into) > _LARGE:
        return 0
    events = [(zeros.inserted, _ZEROS, True)]
    events += [(int(begin[index]), index, True) for index in into.tolist()]
    events += [(int(end[index]), index, False) for index in out.tolist()]
    tree: RbTree[_Entry] = RbTree()
    entries: dict[int, _Entry] = {}
    for _, index, comes in sorted(events):
        if comes:
            entries[index] = _insert(tree, index)
        else:
            tree.erase(entries.pop(index))
    above, entry = None, tree.root
    while entry is not None and entry.index != _ZEROS:
        above, entry = entry, tree.child(entry, LEFT)
    return len(begin) if above is None else above.index


class _Entry(RbNode):
    """A content in the unstable tree, by its index, or `_ZEROS`."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index


def _insert(tree: RbTree[_Entry], index: int) -> _Entry:
    parent, side, entry = None, LEFT, tree.root
    while entry is not None:
        side = LEFT if index < entry.index else RIGHT
        parent, entry = entry, tree.child(entry, side)
    new = _Entry(index)
    tree.insert(new, parent, side)
    return new


def _next_in_tree(begin: I64, end: I64, at: int, time: int) -> int:
    """Return the first index from `at` on of what is in the tree at a time; the length if there is none."""
    while at < len(begin):
        part = slice(at, at + _AT_ONCE)
        there = (begin[part] <= time) & (end[part] > time)
        if there.any():
            return at + int(np.argmax(there))
        at += _AT_ONCE
    return len(begin)


def gone_before(trees: Trees, window: Window) -> bool:
    """Return whether the unstable tree has a page of zeros that was taken away before this window."""
    unstable = trees.unstable
    rows = unstable.rows(np.zeros(1, np.uint64))[1]
    gone: Bool = (unstable["frame"][rows] < 0) & (unstable.dirty_pass(rows) == window.pass_number)
    return bool(gone.any())
