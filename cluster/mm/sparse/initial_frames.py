"""Frames that pages shared at the start, before ksmd came: what would still be one frame without KSM.

`frames_used` less the KSM frames, plus one frame for each merged page, are the frames that would be in use
without KSM if no page had shared one with others before. `InitialFrames.surplus` is what this is too much.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U16, Bool, FrameWords, Slots
from cluster.mm.page_state import INITIAL_FRAME, KSM_ZERO, PRESENT, SHARED


class InitialFrames:
    """Which pages mapped one frame at the start, and whether other processes outside map it, too.

    `PageTable` owns it, and says by the bit INITIAL_FRAME which of the pages would map the frame today if
    ksmd had merged nothing.
    """

    def __init__(self, slots: Slots, frames: FrameWords, outside: Slots) -> None:
        """Note that pages at `slots`, ascending, map `frames`; those of `outside` are mapped outside."""
        self.slots = slots
        words, self._frame = np.unique(frames, return_inverse=True)
        #: By frame: processes outside map it, so that it is always in use; it is a KSM frame by now.
        self._outside: Bool = np.zeros(len(words), np.bool_)
        self._ksm: Bool = np.zeros(len(words), np.bool_)
        self._outside[self._frames(outside)] = True

    def add(self, old: Slots, new: Slots, outside: Slots, state: U16) -> None:
        """Note that pages `new` came to map what pages `old` map, and that `outside` are mapped outside.

        `state` are the states of all slots; a page without INITIAL_FRAME has left its frame.
        """
        kept = (state[self.slots] & INITIAL_FRAME) != 0
        slots, frame = self.slots[kept], self._frame[kept]
        alone = np.setdiff1d(np.concatenate([old, outside]), np.concatenate([slots, new]))
        first = len(self._outside)
        self._outside = np.append(self._outside, np.zeros(len(alone), np.bool_))
        self._ksm = np.append(self._ksm, np.zeros(len(alone), np.bool_))
        self._keep(np.append(slots, alone), np.append(frame, first + np.arange(len(alone))))
        self._keep(np.append(self.slots, new), np.append(self._frame, self._frames(old)))
        self._outside[self._frames(outside)] = True

    def _keep(self, slots: Slots, frame: I64) -> None:
        order = np.argsort(slots)
        self.slots, self._frame = slots[order], frame[order]

    def _frames(self, slots: Slots) -> I64:
        return self._frame[np.searchsorted(self.slots, slots)]

    def outside(self, slots: Slots) -> Bool:
        """Return which of these pages map frames that are mapped outside, too: int64[n] -> bool[n]."""
        return self._outside[self._frames(slots)]

    def become_ksm(self, slots: Slots) -> None:
        """Note that the frames of these pages have become KSM frames."""
        self._ksm[self._frames(slots)] = True

    def surplus(self, state: U16) -> int:
        """Return how many frames too many one frame for each merged page and each private frame are.

        `state` are the states of all slots. The pages of a frame that have not left it would have one frame.
        A page that ksmd merged, or broke out again, counts as one; so does the frame if pages map it still,
        or processes outside do. A KSM frame does not count, so the number is below 0 if one that is mapped
        outside has lost its pages.
        """
        state = state[self.slots]
        here = (state & INITIAL_FRAME) != 0
        apart = here & ((state & (PRESENT | KSM_ZERO)) != 0) & ((state & SHARED) == 0)
        together = here & ((state & SHARED) != 0)
        frames = len(self._outside)
        mapped = np.bincount(self._frame[together], minlength=frames) > 0
        counted = np.bincount(self._frame[apart], minlength=frames) + np.where(
            self._outside, ~self._ksm, mapped
        )
        return int((counted - ((counted > 0) | self._outside)).sum())
