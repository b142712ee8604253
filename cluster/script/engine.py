"""What the replay driver asks of a simulated machine, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NO_FRAME = -1  #: not present, or not mapped at all
SWAPPED = -2  #: swapped out

#: what a page table entry maps, in `RegionView.kind`; NO_FRAME and SWAPPED stand for themselves
ANON, KSM, ZERO_PAGE = 0, 1, 2


class BadAddressError(Exception):
    """An access to a page that is not mapped: a real process would die of SIGSEGV."""


@dataclass(frozen=True, slots=True)
class RegionView:
    """The page table of one region: three arrays with one element a page."""

    p: str
    r: str
    #: a number for each frame, the same for the same frame at any time; or NO_FRAME or SWAPPED
    frame: NDArray[np.int64]
    #: ANON, KSM or ZERO_PAGE; or NO_FRAME or SWAPPED
    kind: NDArray[np.int64]
    #: node of the frame; -1 without one, and for the shared zero page
    node: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MachineView:
    """All that can be seen of a machine from outside."""

    #: counters of /sys/kernel/mm/ksm
    sysfs: Mapping[str, int]
    #: /proc/vmstat
    vmstat: Mapping[str, int]
    #: per live process the fields of its ksm_stat, in the order of creation
    procs: Mapping[str, Mapping[str, int | str]]
    #: regions of live processes, in the order of creation
    regions: Sequence[RegionView]


class Engine(Protocol):
    """A machine with processes and ksmd. Pages are numbered from 0 within their region.

    Where a result is a string, it is the name of the error (`EBUSY`), or empty. Names exist, and ranges lie
    within their region: whoever parsed the scenario has seen to that. Only `scan` and `batch` run ksmd.
    """

    def set_knob(self, knob: str, value: str) -> str:
        """Write a file of /sys/kernel/mm/ksm; `ENOENT` if this kernel has no such file."""

    def knobs(self) -> Mapping[str, int | str]:
        """All files of /sys/kernel/mm/ksm that can be set, but those that drive ksmd."""

    def proc(self, p: str) -> None:
        """Start an empty process."""

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        """Map a region, bound to a node if given; nothing is touched."""

    def fill(self, p: str, r: str, pages: NDArray[np.int64], contents: NDArray[np.uint64]) -> None:
        """Write pages, each whole. Raises BadAddressError at one that is not mapped."""

    def read(self, p: str, r: str, start: int, count: int) -> None:
        """Read pages. Raises BadAddressError at one that is not mapped."""

    def mergeable(self, p: str, r: str, start: int, count: int) -> str:
        """MADV_MERGEABLE."""

    def unmergeable(self, p: str, r: str, start: int, count: int) -> str:
        """MADV_UNMERGEABLE."""

    def unmap(self, p: str, r: str, start: int, count: int) -> str:
        """munmap."""

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        """MADV_DONTNEED."""

    def pageout(self, p: str, r: str, start: int, count: int) -> str:
        """MADV_PAGEOUT."""

    def move(self, p: str, r: str, start: int, count: int, node: int) -> int:
        """move_pages with MPOL_MF_MOVE_ALL, page by page; how many are on the node now."""

    def fork(self, p: str, q: str) -> None:
        """Fork p; the child is named q."""

    def exit(self, p: str) -> None:
        """End a process."""

    def merge_any(self, p: str) -> str:
        """prctl(PR_SET_MEMORY_MERGE)."""

    def unmerge_all(self) -> None:
        """run=2, then run=0."""

    def scan(self) -> bool:
        """Run ksmd to the end of the current pass; False if no process is registered, so nothing happened."""

    def batch(self, pages: int) -> None:
        """One wake-up of ksmd with pages_to_scan as given."""

    def view(self) -> MachineView:
        """What the machine looks like now."""
