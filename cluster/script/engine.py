"""The protocol between a script and the machine that it runs on, simulated or real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.arrays.words import I64, U64

NO_FRAME = -1  #: not present, or not mapped at all
SWAPPED = -2  #: swapped out

#: what a page table entry maps, in `RegionView.kind`, besides NO_FRAME and SWAPPED
ANON, KSM, ZERO_PAGE = 0, 1, 2

#: how a page is mapped, in `RegionView.thp`: a small page, part of a huge page by a PTE, or by a PMD
SMALL, MAPPED_BY_PTE, MAPPED_BY_PMD = 0, 1, 2

HUGE_PAGES = 512  #: small pages of a huge page


class BadAddressError(Exception):
    """An access to a page that is not mapped: a real process would die of SIGSEGV."""


@dataclass(frozen=True, slots=True)
class RegionView:
    """The page table of one region: int64[pages] each."""

    p: str
    r: str
    #: number of the frame, which stays the same over time; or NO_FRAME or SWAPPED
    frame: I64
    #: ANON, KSM or ZERO_PAGE; or NO_FRAME or SWAPPED
    kind: I64
    #: node of the frame; -1 if there is none, and for the shared zero page
    node: I64
    #: SMALL, MAPPED_BY_PTE or MAPPED_BY_PMD; None if the region was never advised MADV_HUGEPAGE
    thp: I64 | None = None


@dataclass(frozen=True, slots=True)
class MachineView:
    """What can be seen of a machine from outside."""

    #: counters of /sys/kernel/mm/ksm
    sysfs: Mapping[str, int]
    #: KSM's counters of /proc/vmstat
    vmstat: Mapping[str, int]
    #: fields of ksm_stat of each live process, in the order of creation
    procs: Mapping[str, Mapping[str, int | str]]
    #: regions of live processes, in the order of creation
    regions: Sequence[RegionView]
    #: counters of huge pages of /proc/vmstat
    thp_vmstat: Mapping[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """A machine with processes and ksmd. Pages are numbered from 0 within their region.

    A string that a method returns is the name of an error (`EBUSY`), or empty for success. The parser has
    checked that names exist and that ranges lie within their region. Only `scan` and `batch` run ksmd.
    """

    def set_knob(self, knob: str, value: str) -> str:
        """Write a file of /sys/kernel/mm/ksm; return `ENOENT` if this kernel has no such file."""

    def knobs(self) -> Mapping[str, int | str]:
        """Return all writable files of /sys/kernel/mm/ksm, without those that drive ksmd."""

    def proc(self, p: str) -> None:
        """Start an empty process."""

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        """Map a region, bound to `node` if given, without touching a page."""

    def fill(self, p: str, r: str, pages: I64, contents: U64) -> str:
        """Write whole pages: their numbers int64[n], their content ids uint64[n].

        Stops at a page whose memory has failed, with `EFAULT`. Raises BadAddressError at an unmapped page.
        """

    def read(self, p: str, r: str, start: int, count: int) -> str:
        """Read pages; else as `fill`."""

    def pin(self, p: str, r: str, start: int, count: int) -> str:
        """Write pages what they hold, and pin them until they are unmapped, as registered buffers are.

        Else as `fill`.
        """

    def mergeable(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_MERGEABLE."""

    def unmergeable(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_UNMERGEABLE."""

    def unmap(self, p: str, r: str, start: int, count: int) -> str:
        """Unmap pages (munmap)."""

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_DONTNEED."""

    def pageout(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_PAGEOUT."""

    def huge(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_HUGEPAGE; regions begin without it. Each aligned 512 pages may be a huge page."""

    def collapse(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_COLLAPSE."""

    def poison(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_HWPOISON: the frames of these pages fail, and all processes lose them."""

    def soft_offline(self, p: str, r: str, start: int, count: int) -> str:
        """Advise MADV_SOFT_OFFLINE: move the pages to other frames, and take theirs out of use."""

    def move(self, p: str, r: str, start: int, count: int, node: int) -> int:
        """Move pages one by one (move_pages with MPOL_MF_MOVE_ALL); return how many are on the node now."""

    def fork(self, p: str, q: str) -> None:
        """Fork p into a child named q."""

    def exit(self, p: str) -> None:
        """End a process."""

    def exec(self, p: str) -> None:
        """Let a process execute a program anew: all of its memory ends, but not PR_SET_MEMORY_MERGE."""

    def merge_any(self, p: str, *, on: bool) -> str:
        """Make all memory of a process mergeable, now and later (PR_SET_MEMORY_MERGE).

        Unless `on`, unmerge and withdraw all memory of a process with that setting, and end the setting.
        """

    def unmerge_all(self) -> None:
        """Write 2 to `run`, then 0: undo all merges."""

    def scan(self) -> bool:
        """Run ksmd to the end of the current pass; return False if it has no process to scan."""

    def batch(self, pages: int) -> None:
        """Wake ksmd up once, with `pages` as pages_to_scan."""

    def view(self) -> MachineView:
        """Return what the machine looks like now."""
