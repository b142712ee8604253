"""The pages that a process has: /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.snapshot import FILE, SHARED, SHARED_ZERO, SWAPPED, WRITTEN

WINDOW = 1 << 16
"""Entries read at once: 512 KiB of pagemap for 256 MiB of address space."""
_JOIN = 512
"""Ranges of pages that are at most this far apart are read together."""

_PRESENT = np.uint64(1 << 63)
_SWAP = np.uint64(1 << 62)
_FILE_OR_SHARED = np.uint64(1 << 61)
_GUARD = np.uint64(1 << 58)
_EXCLUSIVE = np.uint64(1 << 56)
SOFT_DIRTY_BIT = 1 << 55
_SOFT_DIRTY = np.uint64(SOFT_DIRTY_BIT)
_PFN = np.uint64((1 << 55) - 1)

_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16
"""ioctl PAGEMAP_SCAN, Linux 6.7 and later."""
_SCAN_ARGUMENT = struct.Struct("=12Q")
_SCAN_RANGES = 1024

# Categories of PAGEMAP_SCAN (include/uapi/linux/fs.h).
IS_WRITTEN = 1 << 1
IS_PRESENT = 1 << 3
IS_SWAPPED = 1 << 4
IS_ZERO_PAGE = 1 << 5
IS_HUGE = 1 << 6


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Pages in memory or swap, ascending; all arrays have n elements."""

    vpn: NDArray[np.int64]
    flags: NDArray[np.uint16]
    """Flags FILE, SWAPPED, SHARED_ZERO, SHARED; WRITTEN is the soft-dirty bit."""
    pfn: NDArray[np.int64]
    """Page frame number; 0 for swapped pages, and for all pages without CAP_SYS_ADMIN."""
    huge: NDArray[np.bool_]
    """Whether the page is mapped as part of a huge page; always False before Linux 6.7."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which pages are in memory, bool[n]."""
        present: NDArray[np.bool_] = self.flags & SWAPPED == 0
        return present

    def where(self, chosen: NDArray[np.bool_]) -> Listing:
        """Return the chosen pages, bool[n]."""
        return Listing(self.vpn[chosen], self.flags[chosen], self.pfn[chosen], self.huge[chosen])


def own_entry() -> int:
    """Return the entry of a page that this process has just written."""
    with mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        address = np.frombuffer(memory, np.uint8).ctypes.data
        with open("/proc/self/pagemap", "rb", buffering=0) as file:  # noqa: PTH123 (unbuffered)
            entry = os.pread(file.fileno(), 8, address // PAGE_SIZE * 8)
        return int.from_bytes(entry, "little")


def shows_frames() -> bool:
    """Return whether the kernel shows page frame numbers to this process (CAP_SYS_ADMIN)."""
    return bool(own_entry() & int(_PFN))


def joined(parts: list[Listing]) -> Listing:
    """Return the concatenated listings."""
    none = (np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_))
    parts = [Listing(*none), *parts]
    return Listing(*(np.concatenate([getattr(part, name) for part in parts]) for name in Listing.__slots__))


def windows(pagemap: int, start: int, end: int) -> Iterator[Listing]:
    """Yield the pages in memory or swap between two page numbers, window by window, ascending.

    Nothing is faulted in. On Linux 6.7 and later, the cost is proportional to the pages in memory.
    """
    for low, high in _held_ranges(pagemap, start, end):
        for first in range(low, high, WINDOW):
            last = min(first + WINDOW, high)
            # A read is short at the end of user space and if the process has ended: no pages are there.
            raw = os.pread(pagemap, (last - first) * 8, first * 8)
            entries = np.frombuffer(raw, np.uint64)
            held = np.flatnonzero((entries & (_PRESENT | _SWAP) != 0) & (entries & _GUARD == 0))
            if len(held):
                yield _listing(pagemap, first, last, held, entries[held])


def _listing(
    pagemap: int, first: int, last: int, held: NDArray[np.intp], entries: NDArray[np.uint64]
) -> Listing:
    present, file = entries & _PRESENT != 0, entries & _FILE_OR_SHARED != 0
    flags = np.zeros(len(held), np.uint16)
    flags[file] |= FILE
    flags[entries & _SWAP != 0] |= SWAPPED
    flags[present & ~file & (entries & _EXCLUSIVE == 0)] |= SHARED
    flags[entries & _SOFT_DIRTY != 0] |= WRITTEN
    vpn = held + first
    for low, high in ranges(pagemap, first, last, IS_ZERO_PAGE):
        flags[np.searchsorted(vpn, low) : np.searchsorted(vpn, high)] |= SHARED_ZERO
    huge = np.zeros(len(held), np.bool_)
    for low, high in ranges(pagemap, first, last, IS_HUGE):
        huge[np.searchsorted(vpn, low) : np.searchsorted(vpn, high)] = True
    flags[flags & SHARED_ZERO != 0] &= ~np.uint16(SHARED)
    pfn = np.where(present, entries & _PFN, np.uint64(0)).astype(np.int64)
    return Listing(vpn, flags, pfn, huge)


def _held_ranges(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ranges that contain all pages in memory or swap; the whole range if the kernel cannot tell."""
    if end - start <= WINDOW or not has_scan(pagemap):
        yield start, end
        return
    low = high = start
    for first, last in ranges(pagemap, start, end, IS_PRESENT | IS_SWAPPED):
        if first - high > _JOIN:
            if low < high:
                yield low, high
            low = first
        high = last
    if low < high:
        yield low, high


def has_scan(pagemap: int) -> bool:
    """Return whether the kernel has PAGEMAP_SCAN."""
    argument = bytearray(_SCAN_ARGUMENT.pack(_SCAN_ARGUMENT.size, *[0] * 11))
    try:
        fcntl.ioctl(pagemap, _SCAN, argument)
    except OSError as error:
        return error.errno != errno.ENOTTY
    return True


def ranges(pagemap: int, start: int, end: int, categories: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of page numbers in any of these categories, ascending; none before Linux 6.7."""
    try:
        for found in scan(pagemap, start, end, any_of=categories):
            yield from ((low, high) for low, high in found.tolist())
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.ESRCH):  # an older kernel, or an ended process
            raise


def scan(
    pagemap: int, start: int, end: int, *, any_of: int, all_of: int = 0, flags: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield ranges of the page numbers [start, end) in some categories (PAGEMAP_SCAN), ascending.

    Each array is int64[n, 2]: the first page of each range, and the page after its last. Raises OSError.
    """
    buffer = np.empty((_SCAN_RANGES, 3), np.uint64)
    position, stop = start * PAGE_SIZE, end * PAGE_SIZE
    while position < stop:
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                *(_SCAN_ARGUMENT.size, flags, position, stop, 0, buffer.ctypes.data),
                *(_SCAN_RANGES, 0, 0, all_of, any_of, all_of or any_of),
            )
        )
        count = fcntl.ioctl(pagemap, _SCAN, argument)
        yield (buffer[:count, :2] // np.uint64(PAGE_SIZE)).astype(np.int64)
        position = _SCAN_ARGUMENT.unpack(argument)[4]
