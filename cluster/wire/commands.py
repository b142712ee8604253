"""What the coordinator asks of the nodes; every node gets the same command.

Named tuples: each actor makes these classes when it starts, and a frozen dataclass takes six times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64, U64
from cluster.spec.scenario import KsmSpec, PolicySpec
from cluster.wire.window import Window


class Populate(NamedTuple):
    """Create the processes of the scenario and fill their regions.

    `kinds[i]` is the index of process i's kind in the scenario; it runs on node `nodes[i]`.
    """

    kinds: NDArray[np.int32]
    nodes: NDArray[np.int32]


class Tick(NamedTuple):
    """The workload's writes between two moments of simulated time, in seconds."""

    start: float
    stop: float


class Scan(NamedTuple):
    """Visit the pages of the window.

    `ranks[node, index of the mm]` is ksmd's list, -1 for those not in it; None if it is as it was.
    """

    window: Window
    ranks: I64 | None


class Decide(NamedTuple):
    window: Window


class SetKnobs(NamedTuple):
    knobs: KsmSpec


class UnmergeAll(NamedTuple):
    """run=2: undo every merge, and forget all rmap_items; the trees follow with ForgetItems."""


class ForgetItems(NamedTuple):
    """The trees lose all rmap_items."""


class TellUnmapped(NamedTuple):
    """Before RemoveStable: tell the trees of KSM frames that only the swap cache refers to."""


class RemoveStable(NamedTuple):
    """Remove stable nodes that nobody maps, and report whether there are others."""


class CountOn(NamedTuple):
    """How many of these pages have their frame on node `to`."""

    mm: int
    start: int
    pages: int
    to: int


class CountPages(NamedTuple):
    """How many pages of each process ksmd would visit from position `low` to the end of the pass.

    `ranks` as in `Scan`.
    """

    low: int
    ranks: I64 | None


class Locate(NamedTuple):
    """The position behind the `pages`-th page that ksmd would visit in this process from `low` on."""

    mm: int
    low: int
    pages: int


class BeginCompaction(NamedTuple):
    """Get ready for compactors."""


class EndCompaction(NamedTuple):
    """The compactors are done: names follow the frames that they moved. Report what came of it."""

    #: Of the migration, among all windows and migrations.
    number: int


class TellMappings(NamedTuple):
    """Tell other nodes which of their frames are mapped here."""


class PreferredNodes(NamedTuple):
    """Which frames should be on other nodes, as they gain `min_gain` at least there?"""

    min_gain: int


class CountFrames(NamedTuple):
    """How many frames are in use, can move, and are free?"""


class MoveFrames(NamedTuple):
    """Frames go to other nodes."""

    #: int64[nodes, nodes]: how many, from row to column.
    frames: I64
    #: Those that wished it, or the lowest ones.
    wished: bool
    #: Of the migration, among all windows and migrations.
    number: int


class CountMoved(NamedTuple):
    """How many frames did `MoveFrames` bring?"""


class Collect(NamedTuple):
    """Report every statistic."""


class Dump(NamedTuple):
    """Report page tables and frames, for checks."""


# Operations of one process; only its node does anything.


class NewProcess(NamedTuple):
    mm: int


class Map(NamedTuple):
    mm: int
    start: int
    pages: int
    policy: PolicySpec


class Write(NamedTuple):
    mm: int
    vpns: I64
    ids: U64


class Read(NamedTuple):
    mm: int
    start: int
    pages: int


class Madvise(NamedTuple):
    """MADV_MERGEABLE or MADV_UNMERGEABLE."""

    mm: int
    start: int
    pages: int
    mergeable: bool


class Drop(NamedTuple):
    """MADV_DONTNEED, or munmap."""

    mm: int
    start: int
    pages: int
    unmap: bool


class PageOut(NamedTuple):
    """MADV_PAGEOUT."""

    mm: int
    start: int
    pages: int


class Move(NamedTuple):
    """move_pages: the frames of these pages are to be on node `to`."""

    mm: int
    start: int
    pages: int
    to: int
    #: Of the migration, among all windows and migrations.
    number: int


class MergeAny(NamedTuple):
    """prctl(PR_SET_MEMORY_MERGE)."""

    mm: int


class Fork(NamedTuple):
    parent: int
    child: int


class Exit(NamedTuple):
    mm: int


class Reap(NamedTuple):
    """ksmd has passed over this process for the last time."""

    mm: int


ProcessCommand = (
    NewProcess | Map | Write | Read | Madvise | Drop | PageOut | Move | MergeAny | Fork | Exit | Reap
)
Question = RemoveStable | CountPages | CountOn | Locate | Collect | Dump
Compaction = BeginCompaction | EndCompaction
Relocation = TellMappings | PreferredNodes | CountFrames | MoveFrames | CountMoved
Command = (
    Populate
    | Tick
    | Scan
    | Decide
    | SetKnobs
    | UnmergeAll
    | ForgetItems
    | TellUnmapped
    | Compaction
    | Relocation
    | Question
    | ProcessCommand
)
