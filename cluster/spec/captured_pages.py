"""Captured memory as the workload needs it; the file format is the front door's business."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64, U64


@dataclass(frozen=True, slots=True)
class CapturedMapping:
    """A VMA of a captured process."""

    name: str
    start: int
    pages: int
    mergeable: bool


@dataclass(frozen=True, slots=True, eq=False)
class CapturedMoment:
    """The pages of a captured process at one moment, ascending by vpn."""

    #: int64[n], uint64[n]; content 0 is a page of zeros.
    vpn: I64
    content: U64
    #: bool[n]: the content was found in no other captured process, at any moment.
    own: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CapturedProcess:
    """One captured process: its VMAs, and its pages at each moment."""

    name: str
    mappings: tuple[CapturedMapping, ...]
    moments: tuple[CapturedMoment, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CapturedPages:
    """All processes of a snapshot, and the moments in seconds since the first."""

    processes: tuple[CapturedProcess, ...]
    moments: tuple[float, ...]

    def times(self, interval: float | None) -> tuple[float, ...]:
        """When each moment is replayed, in simulated seconds: as captured, or so far from one to the next."""
        return self.moments if interval is None else tuple(i * interval for i in range(len(self.moments)))

    @property
    def pages_a_process(self) -> int:
        """Pages that each process has at the first moment, on the average."""
        return sum(len(process.moments[0].vpn) for process in self.processes) // len(self.processes)
