"""Captured memory in the form that the workload needs. `ksmcluster/capture` reads it from snapshot files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from cluster.arrays.words import I32, I64, Bool, Digests, empty

#: From one content to the next in the order of memcmp: contents that clones have for themselves come between.
ORDER_STEP = 1 << 24
#: Part of the interval by which a moment may be late.
LATE = 0.1


@dataclass(frozen=True, slots=True)
class CapturedMapping:
    """A VMA of a captured process."""

    name: str
    start: int
    pages: int
    #: ksmd scans it on the captured host (VM_MERGEABLE).
    advised: bool


@dataclass(frozen=True, slots=True, eq=False)
class CapturedMoment:
    """The pages of a captured process at one moment, ascending by vpn."""

    #: int64[n]: virtual page numbers.
    vpn: I64
    #: uint64[n]: digests; 0 is a page of zeros.
    content: Digests
    #: bool[n]: no other family of captured processes has the content, at any moment.
    own: Bool
    #: bool[n]: the page was written since the moment before, perhaps with the same bytes.
    written: Bool


@dataclass(frozen=True, slots=True, eq=False)
class SharedFrames:
    """Pages of a process that map the frames of other pages, its own or others'; ascending by vpn, [n]."""

    #: int32: the process, by index, that maps the frame first.
    owner: I32
    #: int64: its page.
    owner_vpn: I64
    #: int64: the page that maps it, too.
    vpn: I64

    @classmethod
    def none(cls) -> Self:
        """Return no pages."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class OutsideMappers:
    """Pages of a process whose frames are mapped by processes that were not captured; int64[n] each."""

    vpn: I64
    mappers: I64

    @classmethod
    def none(cls) -> Self:
        """Return no pages."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


class CapturedParts(NamedTuple):
    """Pages of huge pages that no PMD maps whole; int64[n] each, pages ascend."""

    vpn: I64
    #: Equal for pages of one huge page.
    number: I64

    @classmethod
    def none(cls) -> Self:
        """Return no pages."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class CapturedProcess:
    """One captured process: its VMAs, and its pages at each moment."""

    name: str
    mappings: tuple[CapturedMapping, ...]
    moments: tuple[CapturedMoment, ...]
    #: Index of the first process of its family: processes that share frames, directly or through others.
    family: int
    #: At the first moment at which it has pages.
    shared: SharedFrames = field(default_factory=SharedFrames.none)
    outside: OutsideMappers = field(default_factory=OutsideMappers.none)
    #: None if the snapshot does not tell.
    pid: int | None = None
    #: int64[n], ascending: pages that are pinned from the first moment on.
    pinned: I64 = field(default_factory=empty)
    #: int64[n], ascending: first pages of the huge pages that it maps whole at its first moment.
    huge: I64 = field(default_factory=empty)
    #: Parts of others, none of which another process maps before.
    huge_parts: CapturedParts = field(default_factory=CapturedParts.none)

    @property
    def first(self) -> int:
        """The first moment at which it has pages; 0 if it never has."""
        return next((moment for moment, pages in enumerate(self.moments) if len(pages.vpn)), 0)

    @property
    def has_huge_pages(self) -> bool:
        """Whether it maps huge pages, or parts of them."""
        return len(self.huge) + len(self.huge_parts.vpn) > 0

    @property
    def advised(self) -> bool:
        """Whether ksmd scans any of its memory on the captured host."""
        return any(mapping.advised for mapping in self.mappings)


class ReplayStep(NamedTuple):
    """A moment that is replayed, or writes between it and the one before."""

    #: Simulated seconds.
    time: float
    moment: int
    between: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CapturedPages:
    """All processes of a snapshot; `moments` are in seconds since the first."""

    processes: tuple[CapturedProcess, ...]
    moments: tuple[float, ...]
    #: Seconds between moments that the capture was asked for; None if written pages were not tracked.
    interval: float | None = None
    #: What limits the answer, one sentence each.
    notes: tuple[str, ...] = ()
    #: Huge pages that cannot be placed.
    huge_in_parts: int = 0
    #: Contents below this are multiples of `ORDER_STEP`, and in the order of memcmp; 0 if that is not known.
    ordered: int = 0

    def steps(self, interval: float | None) -> tuple[ReplayStep, ...]:
        """Return what is replayed when.

        With `interval`, moments are that far apart in simulated seconds; with None, as far as they were
        captured. Then, where the capture could not keep the interval that it was asked for, pages that were
        written before and after the gap are written in it, too, as often as the interval fits in.
        """
        if interval is not None:
            return tuple(ReplayStep(i * interval, i) for i in range(len(self.moments)))
        steps = [ReplayStep(0.0, 0)]
        for moment, (begin, end) in enumerate(pairwise(self.moments), 1):
            parts = max(math.ceil((end - begin) / self.interval - LATE), 1) if self.interval else 1
            between = (begin + (end - begin) * part / parts for part in range(1, parts))
            steps += [ReplayStep(time, moment, between=True) for time in between]
            steps.append(ReplayStep(end, moment))
        return tuple(steps)

    @property
    def pages_a_process(self) -> int:
        """The average number of pages of a process at the first moment."""
        return sum(len(process.moments[0].vpn) for process in self.processes) // len(self.processes)
