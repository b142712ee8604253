"""Which pages of a moment share frames, and on which nodes. Numbers replace the PFNs."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.kpage import KernelPages
from ksmcluster.capture.pagemap import Listing
from ksmcluster.snapshot import KSM, SHARED, SHARED_ZERO
from ksmcluster.snapshot.schema import UNKNOWN

_MOVE_PAGES = {"x86_64": 279, "aarch64": 239}
"""Numbers of the system call move_pages."""
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class FrameColumns:
    """The frames of one process's listing; all arrays are int64[n], UNKNOWN where nothing is known."""

    frame: NDArray[np.int64]
    """Equal for pages of the moment that map the same frame; numbered from 0 by first appearance."""
    outside: NDArray[np.int64]
    huge: NDArray[np.int64]
    node: NDArray[np.int64]


def identify(
    pids: Sequence[int], listings: Sequence[Listing], kernel: KernelPages | None, nodes: Sequence[int]
) -> list[FrameColumns]:
    """Return the columns of each process's listing. `nodes` are the ids of the host's NUMA nodes.

    Sets the flags KSM and, on kernels whose pagemap does not tell, SHARED_ZERO in the listings. `kernel` is
    None without root: then frames are not known, and huge pages only where the page table maps them whole.
    """
    sizes = [len(listing.vpn) for listing in listings]
    bounds = np.cumsum([0, *sizes])
    pfn = np.concatenate([np.empty(0, np.int64), *(listing.pfn for listing in listings)])
    flags = np.concatenate([np.empty(0, np.uint16), *(listing.flags for listing in listings)])
    frame, outside, huge = (np.full(len(pfn), UNKNOWN) for _ in range(3))
    known = np.flatnonzero((pfn != 0) & (flags & SHARED_ZERO == 0))
    if kernel is not None and len(known):
        frames, first, which, count = np.unique(
            pfn[known], return_index=True, return_inverse=True, return_counts=True
        )
        is_ksm, is_zero, heads = kernel.kinds(frames)
        flags[known[is_ksm[which]]] |= KSM
        flags[known[is_zero[which]]] = flags[known[is_zero[which]]] & ~np.uint16(SHARED) | SHARED_ZERO
        frame[known] = _ranked(first)[which]
        outside[known] = np.maximum(kernel.mappers(frames) - count, 0)[which]
        huge[known] = _numbered(heads[which])
        zero = known[is_zero[which]]
        frame[zero] = outside[zero] = huge[zero] = UNKNOWN
    elif kernel is None:
        huge = _huge_by_page_table(listings)
    node = np.concatenate([np.empty(0, np.int64), *map(_nodes_of, pids, listings, [nodes] * len(pids))])
    for listing, (low, high) in zip(listings, pairwise(bounds.tolist()), strict=True):
        listing.flags[:] = flags[low:high]
    return [
        FrameColumns(frame[low:high], outside[low:high], huge[low:high], node[low:high])
        for low, high in pairwise(bounds.tolist())
    ]


def _ranked(first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the rank of each of the distinct numbers."""
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank


def _numbered(heads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the heads from 0 in order of first appearance; UNKNOWN stays."""
    there = np.flatnonzero(heads != UNKNOWN)
    numbers = np.full(len(heads), UNKNOWN)
    _, first, which = np.unique(heads[there], return_index=True, return_inverse=True)
    numbers[there] = _ranked(first)[which]
    return numbers


def _huge_by_page_table(listings: Sequence[Listing]) -> NDArray[np.int64]:
    """Return numbers of the huge pages that page tables map whole."""
    size = 512
    parts, before = [np.empty(0, np.int64)], 0
    for listing in listings:
        numbers = _numbered(np.where(listing.huge, listing.vpn // size, UNKNOWN))
        parts.append(np.where(numbers == UNKNOWN, UNKNOWN, numbers + before))
        before += int(numbers.max(initial=UNKNOWN)) + 1
    return np.concatenate(parts)


def _nodes_of(pid: int, listing: Listing, nodes: Sequence[int]) -> NDArray[np.int64]:
    """Return the NUMA node of each page that has a frame (move_pages() without a target)."""
    with_frame = (listing.flags & SHARED_ZERO == 0) & (listing.present)
    found = np.full(len(listing.vpn), UNKNOWN)
    if len(nodes) == 1:
        found[with_frame] = nodes[0]
    elif nodes and platform.machine() in _MOVE_PAGES:
        rows = np.flatnonzero(with_frame)
        for low in range(0, len(rows), _AT_ONCE):
            some = rows[low : low + _AT_ONCE]
            found[some] = _move_pages(pid, listing.vpn[some])
    return found


def _move_pages(pid: int, vpn: NDArray[np.int64]) -> NDArray[np.int64]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    addresses, status = (vpn * PAGE_SIZE).astype(np.uint64), np.full(len(vpn), UNKNOWN, np.int32)
    number = _MOVE_PAGES[platform.machine()]
    arguments = (pid, len(vpn), addresses.ctypes.data, None, status.ctypes.data, 0)
    if libc.syscall(number, *(ctypes.c_void_p(argument) for argument in arguments)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return np.maximum(status.astype(np.int64), UNKNOWN)
