"""Tries of visits to split huge pages, as one node's trees decide a window (split_huge_page()).

A try splits a huge page if it is the first, or where processes share it on some kernels a later one. Visits
to pages of other contents, which other nodes may decide, try it too. So each node decides the window with the
splits it knows, and tells its tries; the owners of huge pages find out which try comes first; and this is
repeated until nothing changes. A visit depends on earlier ones alone: what is found at last is what happens.
"""

from __future__ import annotations

from itertools import repeat
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes, order_by
from cluster.arrays.words import I64, Bool, Digests, FrameWords, ItemKeys, block_of, empty, is_huge_word
from cluster.mm.huge.split_times import NEVER, SplitTime, SplitTimes, positions_of
from cluster.mm.sparse.failed_frames import FailedFrames
from cluster.spec.profile import Profile
from cluster.wire.window import END


class TryRows(NamedTuple):
    """Tries, one a row. Arrays of one length."""

    block: I64
    key: ItemKeys
    position: I64
    nth: I64


class ZerosGone(NamedTuple):
    """Scan positions: since when the unstable tree has a page of zeros, and since when that page is gone."""

    inserted: int
    gone: int


class SplitTries:
    """The tries of one decision."""

    def __init__(self, times: SplitTimes, routed: Digests, profile: Profile, failed: FailedFrames) -> None:
        """`routed`: contents to be decided one by one."""
        self._times, self._profile, self._failed = times, profile, failed
        self._keep_all = profile.split_stops_at_pmd
        self.routed = routed
        #: A split unmaps pages of zeros.
        self.zero_gone = profile.split_maps_zero_page
        #: Splits of the same page twice, which the kernel tries and fails at first.
        self.self_pairs = 0
        #: When the page of zeros in the unstable tree was inserted, and when it was taken away.
        self.zeros = ZerosGone(END, END)
        #: Whether contents with huge pages were decided one by one.
        self.one_by_one = False
        #: Times of splits that are not known yet, and the last try of each huge page.
        self._assumed: dict[int, SplitTime] = {}
        self._last: dict[int, SplitTime] = {}
        self._single: list[tuple[int, int, int, int]] = []
        #: Of tries that follow from plans: contents, and whether both pages are of the same huge page.
        self._planned: list[tuple[TryRows, Digests, Bool]] = []

    def again(self) -> SplitTries:
        """Return an object for a decision of the same window that is not carried out."""
        return SplitTries(self._times, empty(np.uint64), self._profile, self._failed)

    def takes_away(self, frames: FrameWords) -> Bool:
        """Return which frames, if they hold zeros, the split of their huge page unmaps: int64[n] -> bool[n].

        Frames whose memory has failed stay.
        """
        huge: Bool = is_huge_word(frames)
        if not self.zero_gone:
            return np.zeros(len(frames), np.bool_)
        return huge & ~self._failed.among(frames) if len(self._failed) else huge

    # One by one.

    def takes_one_away(self, frame: int) -> bool:
        """Do as `takes_away` for one frame."""
        if not self.zero_gone or not is_huge_word(frame):
            return False
        return len(self._failed) == 0 or bool(self.takes_away(np.array([frame]))[0])

    def whole(self, frame: int, position: int) -> bool:
        """Return whether a frame is part of a huge page that has not been split before this moment."""
        if not is_huge_word(frame):
            return False
        self.one_by_one = True
        block = block_of(frame)
        time = self._times.get(block) or self._assumed.get(block)
        return time is None or (position, self._nth(block, position)) <= time

    def split_position(self, block: int) -> int:
        """Return the scan position at which a huge page is split, as far as that is known."""
        return (self._times.get(block) or self._assumed.get(block) or NEVER)[0]

    def _nth(self, block: int, position: int) -> int:
        last = self._last.get(block)
        return last[1] + 1 if last is not None and last[0] == position else 0

    def split(self, frame: int, key: int, position: int) -> bool:
        """Try to split the huge page of an item's page; return whether it succeeds."""
        block = block_of(frame)
        time = (position, self._nth(block, position))
        self._last[block] = time
        self._single.append((block, key, *time))
        known = self._times.get(block)
        if known is None:
            self._assumed[block] = min(time, self._assumed.get(block, time))
            return True
        return time == known

    def thin_out(self, blocks: I64, positions: I64) -> Bool:
        """Return which visits to pages of zeros need not be decided: bool[n]; positions ascend.

        One of the first two visits splits a huge page, unless all of them find searches blocked.
        """
        if self._keep_all:
            return np.zeros(len(blocks), np.bool_)
        order = np.argsort(blocks, kind="stable")
        start = np.flatnonzero(changes(blocks[order]))
        rank = np.arange(len(blocks)) - np.repeat(start, np.diff(start, append=len(blocks)))
        thinned = np.empty(len(blocks), np.bool_)
        thinned[order] = rank >= 2
        return thinned

    def split_before(self, blocks: I64, positions: I64) -> Bool:
        """Return which huge pages are split before these scan positions. int64[n], int64[n] -> bool[n]."""
        self.one_by_one = True
        runs = np.flatnonzero(changes(blocks))
        splits = self._times.positions(blocks[runs])
        if self._assumed:
            named = np.fromiter(self._assumed, np.int64)
            at = np.fromiter((position for position, _ in self._assumed.values()), np.int64)
            order = np.argsort(named)
            splits = np.minimum(splits, positions_of(blocks[runs], named[order], at[order]))
        before: Bool = np.repeat(splits, np.diff(runs, append=len(blocks))) < positions
        return before

    # Plans.

    def candidates(self, frames: FrameWords, positions: I64) -> I64:
        """Return the rows of visits that merge which may be the tries that count. int64[k].

        That is the first of each huge page, or all where further tries count.
        """
        if self._keep_all:
            return np.flatnonzero(is_huge_word(frames))
        return first_tries(frames, positions)

    def add_planned(
        self, frames: FrameWords, keys: ItemKeys, positions: I64, digests: Digests, partners: FrameWords
    ) -> None:
        """Add tries that follow from plans; `partners` are frames of the pages merged with, or -1."""
        if len(frames):
            tries = TryRows(block_of(frames), keys, positions, np.zeros(len(frames), np.int64))
            pair = is_huge_word(partners) & (block_of(partners) == tries.block)
            self._planned.append((tries, digests, pair))

    def assume_planned(self) -> None:
        """Take it that the tries planned so far split huge pages of which nothing is known yet."""
        if self._keep_all:
            return
        for tries, _, pair in self._planned:
            rows = np.flatnonzero(~pair & ~self._times.known(tries.block))
            rows = rows[_firsts(tries.block[rows], tries.position[rows])] if len(rows) else rows
            positions = zip(tries.position[rows].tolist(), repeat(0))
            assumed = dict(zip(tries.block[rows].tolist(), positions, strict=False))
            for block in assumed.keys() & self._assumed.keys():
                assumed[block] = min(assumed[block], self._assumed[block])
            self._assumed |= assumed

    def not_as_planned(self) -> Digests:
        """Return the contents, ascending, whose plans do not hold.

        A try fails, or the try that splits a huge page is that of two pages of it.
        """
        wrong = [self.routed]
        for tries, digests, pair in self._planned:
            before, first = self._times.compare(tries.block, tries.position, tries.nth)
            wrong.append(digests[np.flatnonzero(before | (first & pair))])
        return np.unique(np.concatenate(wrong))

    def rows(self) -> TryRows:
        """Return all tries."""
        single = np.array(self._single, np.int64).reshape(-1, 4)
        parts = [tries for tries, _, _ in self._planned]
        parts.append(TryRows(single[:, 0], single[:, 1], single[:, 2], single[:, 3]))
        return TryRows(*(np.concatenate([empty(), *column]) for column in zip(*parts, strict=True)))


def first_tries(frames: FrameWords, positions: I64) -> I64:
    """Return the row of each huge page with the least position. int64[n], int64[n] -> int64[k]."""
    rows = np.flatnonzero(is_huge_word(frames))
    if len(rows) == 0:
        return rows
    return rows[_firsts(block_of(frames[rows]), positions[rows])]


def _firsts(blocks: I64, positions: I64) -> I64:
    low = blocks - blocks.min()
    size = int(low.max()) + 1
    if size > (len(blocks) << 6) + (1 << 16):
        order, ascending = order_by(blocks.view(np.uint64))
        starts, of_order = np.flatnonzero(changes(ascending)), positions[order]
        first = np.repeat(np.minimum.reduceat(of_order, starts), np.diff(starts, append=len(order)))
        return order[np.flatnonzero(of_order == first)]
    least = np.full(size, END)
    np.minimum.at(least, low, positions)
    return np.flatnonzero(least[low] == positions)
