"""Captured memory as the workload needs it; the file format is the front door's business."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.words import I64, U64


@dataclass(frozen=True, slots=True)
class SnapshotMapping:
    """A VMA of a captured process."""

    name: str
    start: int
    pages: int
    mergeable: bool


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotProcess:
    """One captured process: its VMAs, and for each moment its pages as vpn int64[n], content uint64[n]."""

    name: str
    mappings: tuple[SnapshotMapping, ...]
    moments: tuple[tuple[I64, U64], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotPages:
    """All processes of a snapshot, and the moments in seconds since the first."""

    processes: tuple[SnapshotProcess, ...]
    moments: tuple[float, ...]

    @property
    def pages_a_process(self) -> int:
        """Pages that each process has at the first moment, on the average."""
        return sum(len(process.moments[0][0]) for process in self.processes) // len(self.processes)
