"""Frames that pages shared at the start, before ksmd came: what would still be one frame without KSM.

`frames_used` less the KSM frames, plus one frame for each merged page, are the frames that would be in use
without KSM if no page had shared one with others before. `InitialFrames.surplus` is what this is too much.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import distinct
from cluster.arrays.words import I64, U16, Bool, Slots, empty
from cluster.mm.page_state import INITIAL_FRAME, KSM_ZERO, PRESENT, SHARED


class InitialFrames:
    """Which pages mapped one frame at the start, and whether other processes outside map it, too.

    `PageTable` owns it, and says by the bit INITIAL_FRAME which of the pages would map the frame today if
    ksmd had merged nothing. All pages are added before ksmd begins.
    """

    def __init__(self) -> None:
        self._shared: list[tuple[Slots, Slots]] = [(empty(), empty())]
        self._mapped_outside: list[Slots] = [empty()]
        self._numbered = False
        #: Ascending slots, and the number of the frame of each.
        self._slots: Slots = empty()
        self._frame: I64 = empty()
        #: By frame: processes outside map it, so that it is always in use; it is a KSM frame by now.
        self._outside: Bool = empty(np.bool_)
        self._ksm: Bool = empty(np.bool_)

    def share(self, old: Slots, new: Slots) -> None:
        """Add pages `new`, which map the frames of `old`."""
        self._shared.append((old, new))
        self._numbered = False

    def map_outside(self, slots: Slots) -> None:
        """Add pages whose frames are mapped outside."""
        self._mapped_outside.append(slots)
        self._numbered = False

    def slots(self) -> Slots:
        """Return the slots of all pages, ascending."""
        if not self._numbered:
            self._number()
            self._numbered = True
        return self._slots

    def _number(self) -> None:
        """Number the frames of all pages added."""
        old, new = (np.concatenate(column) for column in zip(*self._shared, strict=True))
        outside = np.concatenate(self._mapped_outside)
        slots = distinct(np.concatenate([old, new, outside]))
        owner = np.arange(len(slots))
        owner[np.searchsorted(slots, new)] = np.searchsorted(slots, old)
        while not np.array_equal(owner, owner[owner]):
            owner = owner[owner]
        frames, frame = np.unique(owner, return_inverse=True)
        self._slots, self._frame = slots, frame
        self._ksm = np.zeros(len(frames), np.bool_)
        self._outside = np.zeros(len(frames), np.bool_)
        self._outside[frame[np.searchsorted(slots, outside)]] = True

    def _frames(self, slots: Slots) -> I64:
        at = np.searchsorted(self.slots(), slots)
        return self._frame[at]

    def outside(self, slots: Slots) -> Bool:
        """Return which of these pages map frames that are mapped outside, too: int64[n] -> bool[n]."""
        frames = self._frames(slots)
        return self._outside[frames]

    def become_ksm(self, slots: Slots) -> None:
        """Note that the frames of these pages have become KSM frames."""
        frames = self._frames(slots)
        self._ksm[frames] = True

    def surplus(self, state: U16) -> int:
        """Return how many frames too many one frame for each merged page and each private frame are.

        `state` are the states of all slots. The pages of a frame that have not left it would have one frame.
        A page that ksmd merged, or broke out again, counts as one; so does the frame if pages map it still,
        or processes outside do. A KSM frame does not count, so the number is below 0 if one that is mapped
        outside has lost its pages.
        """
        state = state[self.slots()]
        here = (state & INITIAL_FRAME) != 0
        apart = here & ((state & (PRESENT | KSM_ZERO)) != 0) & ((state & SHARED) == 0)
        together = here & ((state & SHARED) != 0)
        frames = len(self._outside)
        mapped = np.bincount(self._frame[together], minlength=frames) > 0
        counted = np.bincount(self._frame[apart], minlength=frames) + np.where(
            self._outside, ~self._ksm, mapped
        )
        return int((counted - ((counted > 0) | self._outside)).sum())
