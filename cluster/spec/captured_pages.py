"""Captured memory in the form that the workload needs. `ksmcluster/capture` reads it from snapshot files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from cluster.arrays.words import I64, Bool, Digests, empty

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
class CapturedProcess:
    """One captured process: its VMAs, and its pages at each moment."""

    name: str
    mappings: tuple[CapturedMapping, ...]
    moments: tuple[CapturedMoment, ...]
    #: Index of the first process of its family: processes that share frames, directly or through others.
    family: int
    #: None if the snapshot does not tell.
    pid: int | None = None
    #: int64[n], ascending: pages that are pinned from the first moment on.
    pinned: I64 = field(default_factory=empty)

    @property
    def advised(self) -> bool:
        """Whether ksmd scans any of its memory on the captured host."""
        return any(mapping.advised for mapping in self.mappings)


@dataclass(frozen=True, slots=True, eq=False)
class SharedFrames:
    """Pages that map the frames of pages of earlier processes at the first moment; int64[n] each."""

    #: The first process, by index, that maps the frame, and its page.
    owner: I64
    owner_vpn: I64
    #: Another process that maps it, and its page. Rows ascend by process and page.
    process: I64
    vpn: I64


@dataclass(frozen=True, slots=True, eq=False)
class OutsideMappers:
    """Frames that processes outside the captured ones map, too, at the first moment; int64[n] each."""

    process: I64
    vpn: I64
    mappers: I64


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
    shared: SharedFrames
    outside: OutsideMappers
    #: Seconds between moments that the capture was asked for; None if written pages were not tracked.
    interval: float | None = None
    #: What limits the answer, one sentence each.
    notes: tuple[str, ...] = ()

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
