"""Finds frames that captured processes share at their start, and frames that other processes also map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import distinct
from cluster.arrays.words import I64, U32, Bool
from cluster.spec.captured_pages import OutsideMappers, SharedFrames
from ksmcluster.snapshot.reader import SnapshotPages
from ksmcluster.snapshot.schema import KSM, SHARED_ZERO, UNKNOWN

_NONE = np.uint32(0xFFFFFFFF)
"""Stands for unknown frames, and frames that ksmd created."""
_MOST_OUTSIDE = np.uint32(1 << 20)
"""Mappers outside that count: with as many, a frame stays in use whatever the captured processes do."""


class _Mapped(NamedTuple):
    """Pages of a process at one moment, and the frame of each."""

    process: int
    vpn: I64
    frame: U32


class SharingFinder:
    """Takes the pages of a snapshot in order; holds four bytes per page, for one moment at a time.

    The shared frames of a process are those at the first moment at which it has pages. Later, frames become
    shared only by a fork, and then another process starts.
    """

    def __init__(self, processes: int) -> None:
        self._begun = np.zeros(processes, np.bool_)
        self._moment = 0
        self._mapped: list[_Mapped] = []
        self._outside: list[list[OutsideMappers]] = [[] for _ in range(processes)]
        self.shared = [SharedFrames.none()] * processes
        """By process; complete after `end`."""

    def outside(self, process: int) -> OutsideMappers:
        """Return the frames of a process that are also mapped outside the captured processes."""
        parts = [OutsideMappers.none(), *self._outside[process]]
        vpn, mappers = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("vpn", "mappers")
        )
        return OutsideMappers(vpn, mappers)

    def frames_of(self, moment: int, process: int, pages: SnapshotPages) -> U32:
        """Return the frames of some pages of a process for `add`; record mappings outside.

        The frames are those without any merging by ksmd.
        """
        if moment != self._moment:
            self.end()
            self._moment = moment
        own = (pages.frame != UNKNOWN) & (pages.flags & (KSM | SHARED_ZERO) == 0)
        rows = np.flatnonzero(own & (pages.outside > 0))
        if len(rows) and not self._begun[process]:
            outside = np.minimum(pages.outside[rows], _MOST_OUTSIDE)
            self._outside[process].append(OutsideMappers(pages.vpn[rows], outside))
        return np.where(own, pages.frame, _NONE).astype(np.uint32)

    def add(self, process: int, vpn: I64, frame: U32) -> None:
        """Add the pages of a process at the moment of its `frames_of`."""
        if len(vpn) and not self._begun.all():
            self._mapped.append(_Mapped(process, vpn, frame))

    def end(self) -> None:
        """End a moment."""
        new = [mapped.process for mapped in self._mapped if not self._begun[mapped.process]]
        if new:
            # The owner is a process that existed before, otherwise the first one.
            self._mapped.sort(key=lambda mapped: (not self._begun[mapped.process], mapped.process))
            self._share(set(new))
            self._begun[new] = True
        self._mapped.clear()

    def _share(self, new: set[int]) -> None:
        frames = np.concatenate([mapped.frame[mapped.frame != _NONE] for mapped in self._mapped])
        frames.sort()
        several = distinct(frames[1:][frames[1:] == frames[:-1]])
        del frames
        if not len(several):
            return
        owner, owner_vpn = np.full(len(several), -1, np.int32), np.zeros(len(several), np.int64)
        for process, vpn, frame in self._mapped:
            at = np.minimum(np.searchsorted(several, frame), len(several) - 1)
            rows = np.flatnonzero(several[at] == frame)
            at = at[rows]
            first = _first_of_each(at, owner[at] < 0)
            owner[at[first]], owner_vpn[at[first]] = process, vpn[rows[first]]
            if process in new:
                # A copy of the captured processes may end before later ones.
                others = ~first & (owner[at] <= process)
                at, rows = at[others], rows[others]
                self.shared[process] = SharedFrames(owner[at], owner_vpn[at], vpn[rows])


def _first_of_each(values: I64, candidates: Bool) -> Bool:
    """Return which candidate rows are the first with their value, bool[n]; others are False."""
    rows = np.flatnonzero(candidates)
    _, first = np.unique(values[rows], return_index=True)
    chosen = np.zeros(len(values), np.bool_)
    chosen[rows[first]] = True
    return chosen
