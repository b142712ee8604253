"""What the coordinator asks of the nodes; every node gets the same command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.spec import KsmSpec, PolicySpec
from cluster.window import Window
from cluster.words import I64, U64


@dataclass(frozen=True, slots=True, eq=False)
class Populate:
    """Create the processes of the scenario and fill their regions.

    `kinds[i]` is the index of process i's kind in the scenario; it runs on node `nodes[i]`.
    """

    kinds: NDArray[np.int32]
    nodes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tick:
    """The workload's writes between two moments of simulated time, in seconds."""

    start: float
    stop: float


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """ksmd's list: `ranks[node, index of the mm]`, -1 for those not in it."""

    ranks: I64


@dataclass(frozen=True, slots=True)
class Scan:
    window: Window


@dataclass(frozen=True, slots=True)
class Decide:
    window: Window


@dataclass(frozen=True, slots=True)
class SetKnobs:
    knobs: KsmSpec


@dataclass(frozen=True, slots=True)
class UnmergeAll:
    """run=2: undo every merge, and forget all rmap_items; the trees follow with ForgetItems."""


@dataclass(frozen=True, slots=True)
class ForgetItems:
    """The trees lose all rmap_items."""


@dataclass(frozen=True, slots=True)
class RemoveStable:
    """Remove stable nodes that nobody maps, and report whether there are others."""


@dataclass(frozen=True, slots=True)
class CountOn:
    """How many of these pages have their frame on node `to`."""

    mm: int
    start: int
    pages: int
    to: int


@dataclass(frozen=True, slots=True)
class CountPages:
    """How many pages of each process ksmd would visit from position `low` to the end of the pass."""

    low: int


@dataclass(frozen=True, slots=True)
class Locate:
    """The position behind the `pages`-th page that ksmd would visit in this process from `low` on."""

    mm: int
    low: int
    pages: int


@dataclass(frozen=True, slots=True)
class BeginCompaction:
    """Get ready for compactors."""


@dataclass(frozen=True, slots=True)
class EndCompaction:
    """The compactors are done: names follow the frames that they moved. Report what came of it."""

    #: Of the migration, among all windows and migrations.
    number: int


@dataclass(frozen=True, slots=True)
class TellMappings:
    """Tell other nodes which of their frames are mapped here."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which frames should be on other nodes, as they gain `min_gain` at least there?"""

    min_gain: int


@dataclass(frozen=True, slots=True)
class CountFrames:
    """How many frames are in use, can move, and are free?"""


@dataclass(frozen=True, slots=True, eq=False)
class MoveFrames:
    """Frames go to other nodes."""

    #: int64[nodes, nodes]: how many, from row to column.
    frames: I64
    #: Those that wished it, or the lowest ones.
    wished: bool
    #: Of the migration, among all windows and migrations.
    number: int


@dataclass(frozen=True, slots=True)
class CountMoved:
    """How many frames did `MoveFrames` bring?"""


@dataclass(frozen=True, slots=True)
class Collect:
    """Report every statistic."""


@dataclass(frozen=True, slots=True)
class Dump:
    """Report page tables and frames, for checks."""


# Operations of one process; only its node does anything.


@dataclass(frozen=True, slots=True)
class NewProcess:
    mm: int


@dataclass(frozen=True, slots=True)
class Map:
    mm: int
    start: int
    pages: int
    policy: PolicySpec


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    mm: int
    vpns: I64
    ids: U64


@dataclass(frozen=True, slots=True)
class Read:
    mm: int
    start: int
    pages: int


@dataclass(frozen=True, slots=True)
class Madvise:
    """MADV_MERGEABLE or MADV_UNMERGEABLE."""

    mm: int
    start: int
    pages: int
    mergeable: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """MADV_DONTNEED, or munmap."""

    mm: int
    start: int
    pages: int
    unmap: bool


@dataclass(frozen=True, slots=True)
class PageOut:
    """MADV_PAGEOUT."""

    mm: int
    start: int
    pages: int


@dataclass(frozen=True, slots=True)
class Move:
    """move_pages: the frames of these pages are to be on node `to`."""

    mm: int
    start: int
    pages: int
    to: int
    #: Of the migration, among all windows and migrations.
    number: int


@dataclass(frozen=True, slots=True)
class MergeAny:
    """prctl(PR_SET_MEMORY_MERGE)."""

    mm: int


@dataclass(frozen=True, slots=True)
class Fork:
    parent: int
    child: int


@dataclass(frozen=True, slots=True)
class Exit:
    mm: int


@dataclass(frozen=True, slots=True)
class Reap:
    """ksmd has passed over this process for the last time."""

    mm: int


ProcessCommand = (
    NewProcess | Map | Write | Read | Madvise | Drop | PageOut | Move | MergeAny | Fork | Exit | Reap
)
Question = RemoveStable | CountPages | CountOn | Locate | Collect | Dump
Compaction = BeginCompaction | EndCompaction
Relocation = TellMappings | Wish | CountFrames | MoveFrames | CountMoved
Command = (
    Populate
    | Tick
    | Order
    | Scan
    | Decide
    | SetKnobs
    | UnmergeAll
    | ForgetItems
    | Compaction
    | Relocation
    | Question
    | ProcessCommand
)
