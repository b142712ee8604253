"""Which pages of a process are there: /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.snapshot import FILE, SHARED_ZERO, SWAPPED

_WINDOW = 1 << 16
"""Entries read at once: 512 KiB of pagemap for 256 MiB of address space."""

_PRESENT = np.uint64(1 << 63)
_SWAP = np.uint64(1 << 62)
_FILE_OR_SHARED = np.uint64(1 << 61)
_GUARD = np.uint64(1 << 58)

_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16
"""ioctl PAGEMAP_SCAN, Linux 6.7 and later."""
_SCAN_ARGUMENT = struct.Struct("=12Q")
_SCAN_REGIONS = 1024
_IS_ZERO_PAGE = 1 << 5


def windows(pagemap: int, start: int, end: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
    """Pages in memory or swap between two page numbers, window by window, ascending.

    Gives vpn uint64[n] and flags uint8[n] of FILE, SWAPPED and SHARED_ZERO. Nothing is faulted in.
    """
    for first in range(start, end, _WINDOW):
        last = min(first + _WINDOW, end)
        # Short at the end of user space and when the process has ended: those pages are absent.
        raw = os.pread(pagemap, (last - first) * 8, first * 8)
        entries = np.frombuffer(raw, np.uint64)
        held = np.flatnonzero((entries & (_PRESENT | _SWAP) != 0) & (entries & _GUARD == 0))
        if not len(held):
            continue
        entries = entries[held]
        flags = np.zeros(len(held), np.uint8)
        flags[entries & _FILE_OR_SHARED != 0] |= FILE
        flags[entries & _SWAP != 0] |= SWAPPED
        vpn = held.astype(np.uint64) + np.uint64(first)
        for low, high in _zero_page_ranges(pagemap, first, last):
            flags[np.searchsorted(vpn, low) : np.searchsorted(vpn, high)] |= SHARED_ZERO
        yield vpn, flags


def _zero_page_ranges(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of page numbers where the kernel's shared zero page is mapped; none before Linux 6.7."""
    regions = (ctypes.c_uint64 * (3 * _SCAN_REGIONS))()
    position = start * PAGE_SIZE
    while position < end * PAGE_SIZE:
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                *(_SCAN_ARGUMENT.size, 0, position, end * PAGE_SIZE, 0, ctypes.addressof(regions)),
                *(_SCAN_REGIONS, 0, 0, _IS_ZERO_PAGE, 0, _IS_ZERO_PAGE),
            )
        )
        try:
            count = fcntl.ioctl(pagemap, _SCAN, argument)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.ESRCH):  # an older kernel; the process has ended
                return
            raise
        for index in range(count):
            yield regions[3 * index] // PAGE_SIZE, regions[3 * index + 1] // PAGE_SIZE
        position = _SCAN_ARGUMENT.unpack(argument)[4]
