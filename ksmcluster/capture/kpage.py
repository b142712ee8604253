"""Page frames as the kernel shows them to root: /proc/kpagecount and /proc/kpageflags."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ksmcluster.capture.pagemap import shows_frames

# include/uapi/linux/kernel-page-flags.h
_COMPOUND_HEAD = np.uint64(1 << 15)
_COMPOUND_TAIL = np.uint64(1 << 16)
_KSM = np.uint64(1 << 21)
_ZERO_PAGE = np.uint64(1 << 24)
_BLOCK = 512
"""Frames of the largest anonymous folio; its first frame is a multiple of this."""


class FrameKinds(NamedTuple):
    """Kinds of frames; one element per frame."""

    ksm: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    """Whether it is the shared zero page."""
    head: NDArray[np.int64]
    """The first frame of its folio; -1 for frames on their own."""


class KernelPages:
    """The two open files; a context manager."""

    def __init__(self, count: int, flags: int) -> None:
        self._count, self._flags = count, flags

    @classmethod
    def open(cls) -> Self | None:
        """Open the files; return None if they may not be read, or if frame numbers are hidden.

        Root without CAP_SYS_ADMIN may read the files, but does not see the frames of pages.
        """
        if not shows_frames():
            return None
        opened: list[int] = []
        for name in ("/proc/kpagecount", "/proc/kpageflags"):
            try:
                opened.append(os.open(name, os.O_RDONLY))
            except OSError:
                for descriptor in opened:
                    os.close(descriptor)
                return None
        return cls(*opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._count)
        os.close(self._flags)

    def mappers(self, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many page table entries map each frame. pfns ascending, int64[n] -> int64[n]."""
        return _words(self._count, pfns).astype(np.int64)

    def kinds(self, pfns: NDArray[np.int64]) -> FrameKinds:
        """Return the kinds of frames; pfns ascending, int64[n]."""
        flags = _words(self._flags, pfns)
        return FrameKinds(flags & _KSM != 0, flags & _ZERO_PAGE != 0, self._heads(pfns, flags))

    def _heads(self, pfns: NDArray[np.int64], flags: NDArray[np.uint64]) -> NDArray[np.int64]:
        heads = np.full(len(pfns), -1)
        compound = np.flatnonzero(flags & (_COMPOUND_HEAD | _COMPOUND_TAIL) != 0)
        if not len(compound):
            return heads
        blocks = np.unique(pfns[compound] // _BLOCK)
        frames = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        is_head = _words(self._flags, frames) & _COMPOUND_HEAD != 0
        last_head = np.maximum.accumulate(np.where(is_head, frames, -1))
        heads[compound] = last_head[np.searchsorted(frames, pfns[compound])]
        return heads


def _words(file: int, pfns: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Read the 8-byte entries of ascending frames; 0 for frames that do not exist."""
    words = np.zeros(len(pfns), np.uint64)
    if not len(pfns):
        return words
    breaks = np.flatnonzero(np.diff(pfns) > _BLOCK) + 1
    for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(pfns)], strict=True):
        for low in range(start, end, 1 << 16):
            some = pfns[low : min(low + (1 << 16), end)]
            first = int(some[0])
            raw = os.pread(file, (int(some[-1]) - first + 1) * 8, first * 8)
            found = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
            at = some - first
            there = at < len(found)
            words[low : low + len(some)][there] = found[at[there]]
    return words
