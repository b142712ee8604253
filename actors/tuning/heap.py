"""The heap of a process with nodes: reserved once, kept during a window, trimmed after it."""

from __future__ import annotations

import ctypes
import mmap
import os
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.words import U8, U64

if TYPE_CHECKING:
    from cluster.wire.mailbox import Inbox

#: A window that received this many rows of messages leaves some 20 MiB free.
#: Less memory is not worth the page faults of giving it back.
MANY_ROWS = 1 << 19

#: Bytes that a window takes for each page that it merges: for messages and their effects; and, one node after
#: the other, for sorting and comparing.
BYTES_PER_PAGE, WORK_BYTES_PER_PAGE = 48, 48

#: glibc's mallopt(3): the free memory at the end of the heap above which it is returned to the system, and
#: the size from which an array gets a mapping of its own, which is returned with it. With the defaults most
#: arrays' memory is returned, and the system zeroes the pages of the next array again, at 1 to 6 µs a page.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MMAP_BYTES, _NEVER_TRIM = 64 << 20, 32 << 20, -1

#: At most an eighth of this host's memory is reserved.
_PARTS_OF_MEMORY = 8

#: Less than the size from which numpy asks for huge pages, of which a shared host may have none ready.
_BLOCK_BYTES = 3 << 20
_PAGE_SIZE = mmap.PAGESIZE
#: madvise(2), since Linux 5.14.
_MADV_POPULATE_WRITE = 23


_LIBC = ctypes.CDLL(None)


def keep_free_memory() -> None:
    """Make malloc keep the memory of temporary arrays for the next ones. Does nothing without glibc."""
    _mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    _mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def _mallopt(parameter: int, value: int) -> None:
    if mallopt := getattr(_LIBC, "mallopt", None):
        mallopt(parameter, value)


class Heap:
    """Reserves memory before the first window, and trims the heap after windows with many messages.

    It is the `MessageMemory` of the nodes of its process.
    """

    def __init__(self) -> None:
        keep_free_memory()
        self._rows = 0
        self._reserved = 0

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        """Reserve the memory of a window that merges all pages: page by page, page faults take longer.

        `tree_keys` holds the parts of this column of each node. The first pass writes them; their pages are
        faulted in here, too.
        """
        for part in chain.from_iterable(tree_keys):
            _fault_in(part.view(np.uint8))
        pages = [sum(map(len, parts)) for parts in tree_keys]
        size = sum(pages) * BYTES_PER_PAGE + max(pages) * WORK_BYTES_PER_PAGE
        # A machine that nearly fills this host takes what it needs, which is less, and has page faults.
        size = min(size, os.sysconf("SC_PHYS_PAGES") * _PAGE_SIZE // _PARTS_OF_MEMORY)
        blocks = [np.empty(_BLOCK_BYTES, np.uint8) for _ in range(size // _BLOCK_BYTES)]
        for block in blocks:
            _fault_in(block)
        self._reserved = len(blocks) * _BLOCK_BYTES
        if self._reserved > _KEPT_BYTES // 2:
            _mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)

    def before_step(self, inbox: Inbox) -> None:
        """Note that a node of this process is about to take in these messages."""
        self._rows += sum(len(columns[0]) for columns in inbox.values())

    def all_received(self) -> None:
        """Note that no message of these nodes is under way; trim the heap if there were many."""
        if self._rows >= MANY_ROWS or (self._rows and self._reserved > _KEPT_BYTES // 2):
            self._rows = self._reserved = 0
            _mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            if trim := getattr(_LIBC, "malloc_trim", None):
                trim(0)


def _fault_in(block: U8) -> None:
    """Make the system provide the pages of this memory now; its contents stay."""
    start = -(-block.ctypes.data // _PAGE_SIZE) * _PAGE_SIZE
    size = (block.ctypes.data + block.nbytes) // _PAGE_SIZE * _PAGE_SIZE - start
    if size <= 0:
        return
    madvise = getattr(_LIBC, "madvise", None)
    if madvise is None or madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_POPULATE_WRITE):
        block[::_PAGE_SIZE] |= 0
