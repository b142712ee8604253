"""The heap: memory for messages is taken once, stays with the process during a window, and goes after it."""

from __future__ import annotations

import ctypes
import mmap
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.words import U8, U64

if TYPE_CHECKING:
    from cluster.wire.mailbox import Inbox

#: Rows of messages after which a window leaves much: some 20 MiB. Less is not worth the page faults.
MUCH = 1 << 19

#: Bytes that a window needs for each page that it merges: messages, and what becomes of them; and, one node
#: after the other, to sort and compare.
PER_PAGE, AT_WORK = 48, 48

#: glibc's mallopt(3): how much free memory at the end of the heap is given back at once, and the least size
#: of arrays that get memory of their own, which goes back with each. By default an array's memory mostly goes
#: back, and the system fills the next one's pages with zeros again, at 1 to 6 µs a page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _OWN, _NEVER = 64 << 20, 32 << 20, -1

#: Less than what numpy wants huge pages for, of which a shared host may have none ready.
_BLOCK = 3 << 20
_PAGE = mmap.PAGESIZE
#: madvise(2), since Linux 5.14.
_MADV_POPULATE_WRITE = 23


_LIBC = ctypes.CDLL(None)


def keep_free_memory() -> None:
    """Has libc keep what temporary arrays leave."""
    _set(_TRIM_THRESHOLD, _KEPT)
    _set(_MMAP_THRESHOLD, _OWN)


def _set(parameter: int, value: int) -> None:
    if mallopt := getattr(_LIBC, "mallopt", None):
        mallopt(parameter, value)


class Heap:
    """Takes memory before the first window, and gives it back at the end of windows that moved much."""

    def __init__(self) -> None:
        keep_free_memory()
        self._rows = 0
        self._reserved = 0

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        """Takes what a window needs that merges all these pages: page by page takes longer.

        `tree_keys` are parts of that column, by node. The first pass writes them, and finds memory there.
        """
        for part in chain.from_iterable(tree_keys):
            _touch(part.view(np.uint8))
        pages = [sum(map(len, parts)) for parts in tree_keys]
        size = sum(pages) * PER_PAGE + max(pages) * AT_WORK
        blocks = [np.empty(_BLOCK, np.uint8) for _ in range(size // _BLOCK)]
        for block in blocks:
            _touch(block)
        self._reserved = len(blocks) * _BLOCK
        if self._reserved > _KEPT // 2:
            _set(_TRIM_THRESHOLD, _NEVER)

    def took(self, inbox: Inbox) -> None:
        """A node of this process took these messages in."""
        self._rows += sum(len(columns[0]) for columns in inbox.values())

    def rest(self) -> None:
        """Nothing of these nodes is under way."""
        if self._rows >= MUCH or (self._rows and self._reserved > _KEPT // 2):
            self._rows = self._reserved = 0
            _set(_TRIM_THRESHOLD, _KEPT)
            if trim := getattr(_LIBC, "malloc_trim", None):
                trim(0)


def _touch(block: U8) -> None:
    """Has the system give its pages now; what is in them stays."""
    start = -(-block.ctypes.data // _PAGE) * _PAGE
    size = (block.ctypes.data + block.nbytes) // _PAGE * _PAGE - start
    if size <= 0:
        return
    madvise = getattr(_LIBC, "madvise", None)
    if madvise is None or madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_POPULATE_WRITE):
        block[::_PAGE] |= 0
