"""The operations of a script, as `cluster.script.parser` parses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.spec.content import Pattern

#: what can be done to a range of pages, apart from fill and move
RangeAction = Literal[
    "read",
    "pin",
    "mergeable",
    "unmergeable",
    "unmap",
    "dontneed",
    "pageout",
    "huge",
    "collapse",
    "poison",
    "soft_offline",
]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its line number, from 1, and its text without comment."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class RequireOp(Operation):
    """Require nodes, swap, a knob or huge pages; the runner skips the rest of the script without it."""

    what: Literal["nodes", "swap", "knob", "thp"]
    nodes: int = 0
    knob: str = ""


@dataclass(frozen=True, slots=True)
class SetKnobOp(Operation):
    """Write a file of /sys/kernel/mm/ksm."""

    knob: str
    value: str


@dataclass(frozen=True, slots=True)
class DrainOp(Operation):
    """Set whether per-CPU LRU batches are flushed before each step. A simulated machine has none."""

    on: bool


@dataclass(frozen=True, slots=True)
class ProcOp(Operation):
    """Start a process."""

    p: str


@dataclass(frozen=True, slots=True)
class MapOp(Operation):
    """Map a region."""

    p: str
    r: str
    pages: int
    node: int | None


@dataclass(frozen=True, slots=True)
class HugeMapOp(MapOp):
    """Map a region that may have huge pages, and unless `lazy` fault them in."""

    lazy: bool


@dataclass(frozen=True, slots=True)
class FillOp(Operation):
    """Write pages of a region."""

    p: str
    r: str
    start: int
    count: int
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class RangeOp(Operation):
    """Do something else to a range of pages."""

    action: RangeAction
    p: str
    r: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class MoveOp(Operation):
    """Migrate pages to a node."""

    p: str
    r: str
    start: int
    count: int
    node: int


@dataclass(frozen=True, slots=True)
class ForkOp(Operation):
    """Fork p into q."""

    p: str
    q: str


@dataclass(frozen=True, slots=True)
class ExitOp(Operation):
    """End a process."""

    p: str


@dataclass(frozen=True, slots=True)
class ExecOp(Operation):
    """Let a process execute a program anew."""

    p: str


@dataclass(frozen=True, slots=True)
class MergeAnyOp(Operation):
    """Make all memory of a process mergeable, now and later; unless `on`, unmerge and withdraw all of it."""

    p: str
    on: bool


@dataclass(frozen=True, slots=True)
class UnmergeAllOp(Operation):
    """Write 2 to `run`, then 0: undo all merges."""


@dataclass(frozen=True, slots=True)
class ScanOp(Operation):
    """Run ksmd to the end of the pass, then record; so many times."""

    times: int


@dataclass(frozen=True, slots=True)
class BatchOp(Operation):
    """Wake ksmd up once to scan so many pages, then record."""

    pages: int


@dataclass(frozen=True, slots=True)
class RecordOp(Operation):
    """Record what the machine looks like now."""

    label: str
