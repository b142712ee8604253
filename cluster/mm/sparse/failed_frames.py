"""Frames of the machine whose memory has failed (PG_hwpoison); every node knows all of them."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import Bool, FrameWords, block_of, is_huge_word, is_ksm_word, private_word


class FailedFrames:
    """Frames that stay in use for ever, with or without mappings. They neither move nor go to swap."""

    def __init__(self) -> None:
        #: The last known word of each frame by its private word.
        self._words: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._words)

    def note(self, frames: FrameWords) -> None:
        """Add frames, or note the words that they have now."""
        self._words |= zip(private_word(frames).tolist(), frames.tolist(), strict=True)

    def follow(self, frames: FrameWords) -> None:
        """Note the words that frames have now, if they are here."""
        if self._words:
            self.note(frames[self.among(frames)])

    def among(self, frames: FrameWords) -> Bool:
        """Return which frames are here. int64[n] -> bool[n]."""
        return np.isin(private_word(frames), self._private())

    def hold(self, frames: FrameWords) -> Bool:
        """Return which frames are here, or share a huge page with one that is. int64[n] -> bool[n]."""
        held = self.among(frames)
        huge = np.flatnonzero(is_huge_word(frames))
        held[huge] = np.isin(block_of(private_word(frames[huge])), block_of(self._private()))
        return held

    def ksm_frames(self) -> FrameWords:
        """Return the words of those that are KSM frames."""
        words = np.array(list(self._words.values()), np.int64)
        return words[is_ksm_word(words)]

    def _private(self) -> FrameWords:
        return np.array(list(self._words), np.int64)
