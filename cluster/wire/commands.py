"""The commands of the coordinator, and the answers of the nodes. Every node gets the same command.

The answer to a command is declared right after it; most commands have none. A new command is declared here
and gets its handler in the table of `cluster/machine/node.py`.

Named tuples: each actor makes these classes when it starts, and a frozen dataclass takes six times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64, U64, Digests, FrameWords, ItemKeys, Pfns
from cluster.spec.scenario import KsmSpec, PolicySpec
from cluster.wire.rmap_walks import RmapWalks
from cluster.wire.window import Window

# The workload.


class Populate(NamedTuple):
    """Create the processes of the scenario and fill their regions.

    `kinds[i]` is the index of process i's kind in the scenario; the process runs on node `nodes[i]`.
    """

    kinds: NDArray[np.int32]
    nodes: NDArray[np.int32]


class ShareFrames(NamedTuple):
    """Have workers and captured processes that have begun map the frames that they share then."""


class PinPages(NamedTuple):
    """Pin the pages of the scenario's processes that are pinned from the start."""


class DrawAges(NamedTuple):
    """Make all pages that ksmd keeps track of as old as the scenario's history says."""


class Tick(NamedTuple):
    """Carry out the workload's writes between two moments of simulated time, in seconds."""

    start: float
    stop: float


# ksmd. `ranks[node, index of the mm]` is ksmd's list, -1 for an mm that is not in it; int64[nodes, width].
# None stands for the list that the nodes have already.


class Scan(NamedTuple):
    """Take over ksmd's list, and visit the pages of the window.

    Answered, like `Decide`, with `Statistics` if the window is over, that is, if the node sends no message.
    """

    window: Window
    ranks: I64 | None


class Decide(NamedTuple):
    """Decide what becomes of the pages visited in the window."""

    window: Window


class FindSplits(NamedTuple):
    """Decide the window as far as splits of huge pages are known, and tell which ones follow from that.

    Sent again, with `first` False, until no node learns of another split; `Decide` comes then.
    """

    window: Window
    first: bool


class SettleSplits(NamedTuple):
    """Find out which tries split huge pages, and tell all nodes what has changed."""


class SplitsSettled(NamedTuple):
    """Whether anything has changed since the last time."""

    changed: bool


class CountUndone(NamedTuple):
    """Count the pages that the last window did not visit after all, because splits took them away."""


class Undone(NamedTuple):
    nr_pages: int


class PlanWindow(NamedTuple):
    """Take over ksmd's list, and count the pages to visit from position `low` to the end of the pass."""

    low: int
    ranks: I64 | None


class PagesToVisit(NamedTuple):
    """The number of pages to visit of each process (mm) of the node."""

    of_mm: dict[int, int]


class Locate(NamedTuple):
    """Find where the next `nr_pages[i]` pages to visit of process `mms[i]` end, from position `low` on."""

    low: int
    #: int64[n] each.
    mms: I64
    nr_pages: I64


class Located(NamedTuple):
    """By index in `Locate`, for processes of the node: the virtual page after the last of those pages."""

    vpn: dict[int, int]


# Knobs: /sys/kernel/mm/ksm.


class SetKnobs(NamedTuple):
    knobs: KsmSpec


class UnmergeAll(NamedTuple):
    """run=2: undo every merge and forget all rmap_items; the trees follow with `ForgetItems`."""


class ForgetItems(NamedTuple):
    """Remove all rmap_items from the trees."""


class TellUnmapped(NamedTuple):
    """Tell the trees which KSM frames only the swap cache refers to; comes before `RemoveStable`."""


class RemoveStable(NamedTuple):
    """Remove the stable nodes whose frames no page maps (remove_all_stable_nodes())."""


class StableNodesLeft(NamedTuple):
    """Whether the node still has stable nodes."""

    left: bool


# Compaction, and relocation between nodes. `seq` is the sequence number of a migration, as of a window.


class BeginCompaction(NamedTuple):
    """Prepare the node's memory for compactors."""


class EndCompaction(NamedTuple):
    """The compactors are done: tell all nodes the new names of the frames that they moved.

    Answered with `cluster.compaction.scenario.node_report.NodeReport`.
    """

    seq: int


class TellMappings(NamedTuple):
    """Tell other nodes which of their frames are mapped here; comes before `FindPreferredNodes`."""


class FindPreferredNodes(NamedTuple):
    """Find the frames that gain at least `min_gain` on another node, and keep them for `MoveFrames`."""

    min_gain: int


class PreferredNodes(NamedTuple):
    """The number of the node's frames that prefer each node (int64[nodes]), and its free frames."""

    counts: I64
    free: int


class CountFrames(NamedTuple):
    """Count the node's frames."""

    #: For a drain, in which KSM frames move whatever merge_across_nodes is.
    draining: bool


class FrameCounts(NamedTuple):
    """Frames in use, those among them that may move one by one, and free frames.

    Then huge pages that may move as a whole, and how many could be allocated.
    """

    used: int
    movable: int
    free: int
    huge: int
    free_huge: int


class MoveFrames(NamedTuple):
    """Move frames to other nodes."""

    #: int64[nodes, nodes]: the number of frames that move from row to column.
    counts: I64
    #: Move the frames that prefer the node; otherwise those with the lowest pfns.
    preferred: bool
    #: As in `CountFrames`.
    draining: bool
    #: Move huge pages as a whole, and `counts` are theirs; otherwise frames one by one.
    huge: bool
    seq: int


class SplitHuge(NamedTuple):
    """Split the huge pages that have frames among those that a drain by `MoveFrames` would move."""

    counts: I64


class HugeSplit(NamedTuple):
    """How many huge pages were split."""

    number: int


class CountMoved(NamedTuple):
    """Count the frames that the last `MoveFrames` brought here."""


class MovedIn(NamedTuple):
    """The number of frames that came from each node, and of mappings of KSM frames among them.

    counts, mappings int64[nodes]. walks: over these KSM frames.
    """

    counts: I64
    mappings: I64
    walks: RmapWalks


class CountStayed(NamedTuple):
    """Count what stayed on the nodes that the last `MoveFrames` drained."""

    nodes: tuple[int, ...]
    #: Why frames were not to move.
    why: str


class PagesStayed(NamedTuple):
    """What stayed on a node: owners, numbers of pages, reasons. Empty for nodes that were not drained."""

    stayed: tuple[tuple[str, int, str], ...]


# Processes. Only the node of the process `mm` carries these out and answers.


class NewProcess(NamedTuple):
    mm: int


class Map(NamedTuple):
    mm: int
    start: int
    nr_pages: int
    policy: PolicySpec


class Write(NamedTuple):
    """Write the contents with the ids `ids` to the pages `vpns`; None stands for what they hold."""

    mm: int
    vpns: I64
    ids: U64 | None


class Pin(NamedTuple):
    """Pin a range of pages that have frames of their own."""

    mm: int
    start: int
    nr_pages: int


class Read(NamedTuple):
    mm: int
    start: int
    nr_pages: int


class Madvise(NamedTuple):
    """MADV_MERGEABLE or MADV_UNMERGEABLE."""

    mm: int
    start: int
    nr_pages: int
    mergeable: bool


class AdviseHuge(NamedTuple):
    """MADV_HUGEPAGE."""

    mm: int
    start: int
    nr_pages: int


class SwapIn(NamedTuple):
    """Bring back from swap what `Collapse`, which comes next, needs."""

    mm: int
    start: int
    nr_pages: int


class Collapse(NamedTuple):
    """MADV_COLLAPSE."""

    mm: int
    start: int
    nr_pages: int


class Collapsed(NamedTuple):
    """The name of the error, or nothing."""

    error: str


class Zap(NamedTuple):
    """MADV_DONTNEED, or munmap (zap_page_range())."""

    mm: int
    start: int
    nr_pages: int
    unmap: bool


class PageOut(NamedTuple):
    """MADV_PAGEOUT."""

    mm: int
    start: int
    nr_pages: int


class SplitParts(NamedTuple):
    """Split the huge pages that `PageOut` or `Move`, which comes next, would tear.

    `to` is the node that they move to; -1 before `PageOut`.
    """

    mm: int
    start: int
    nr_pages: int
    to: int


class Move(NamedTuple):
    """move_pages: move the frames of these pages to node `to`. Every node notes `seq`."""

    mm: int
    start: int
    nr_pages: int
    to: int
    seq: int


class CountOn(NamedTuple):
    """Count the pages of a range whose frames are on node `to`."""

    mm: int
    start: int
    nr_pages: int
    to: int


class PagesOn(NamedTuple):
    nr_pages: int


class MergeAny(NamedTuple):
    """prctl(PR_SET_MEMORY_MERGE)."""

    mm: int
    on: bool


class Fork(NamedTuple):
    #: The parent.
    mm: int
    child: int


class Exit(NamedTuple):
    mm: int


class Exited(NamedTuple):
    """Whether ksmd has rmap_items of the process."""

    has_items: bool


class Reap(NamedTuple):
    """Free what ksmd has passed over for the last time: unmapped VMAs and, after its exit, the mm."""

    mm: int


class Reaped(NamedTuple):
    """Whether no memory of the process is mergeable, and whether ksmd still has to pass over some of it."""

    unmergeable: bool
    incomplete: bool


# Memory failure and soft offline; `cluster.numa.memory_failure` carries these out.


class LookAtPage(NamedTuple):
    """Find what a page maps. Only the node of the process `mm` answers."""

    mm: int
    vpn: int


class PageSeen(NamedTuple):
    """The page table entry, and whether the page is part of the huge zero page."""

    pte: int
    huge_zero: bool


class LookAtFrame(NamedTuple):
    """Find out about a frame. Only its node answers."""

    frame: int


class FrameSeen(NamedTuple):
    """Whether the memory of the frame has failed, and how many page table entries map it."""

    failed: bool
    mapcount: int


class FailFrame(NamedTuple):
    """Note on all nodes that the memory of a frame has failed."""

    frame: int


class TrySplit(NamedTuple):
    """Try to split the huge page that a page is part of."""

    mm: int
    vpn: int


class LoseFrame(NamedTuple):
    """Take a frame that is not part of a huge page from all pages that reverse mapping finds."""

    frame: int


class RenewFrame(NamedTuple):
    """Move a page to another frame of the same node if that is possible. Every node notes `seq`."""

    mm: int
    vpn: int
    seq: int


class RetireFrame(NamedTuple):
    """Take a frame that has become free out of use for good."""

    frame: int


class FindLost(NamedTuple):
    """Find the pages of a range whose memory has failed. Only the node of the process `mm` answers."""

    mm: int
    start: int
    nr_pages: int


class PagesLost(NamedTuple):
    vpns: I64


FailureCommand = (
    LookAtPage | LookAtFrame | FailFrame | TrySplit | LoseFrame | RenewFrame | RetireFrame | FindLost
)


# What nodes show of themselves; these commands change nothing.


class Collect(NamedTuple):
    """Collect the statistics."""


class Statistics(NamedTuple):
    """The statistics of one node so far.

    `counts`: by name of `cluster.spec.statistics`, but for pages_shared and pages_sharing. These belong to
    the nodes of the frames: `shared` and `sharing`, int64[nodes], are what this node's trees add to each.
    """

    counts: dict[str, int]
    shared: I64
    sharing: I64


class CountProcesses(NamedTuple):
    """Count the pages of each process, as at the end of a run."""


class MappingName(NamedTuple):
    """Names mappings: the index of the processes' kind, the captured process's name or "", their own name."""

    kind: int
    captured: str
    mapping: str


class ProcessCounts(NamedTuple):
    """The processes of a node in the order of their mms, its mappings by name, its KSM frames by mappings.

    The fields are those of `cluster.machine.census.Census`.
    """

    kinds: I64
    numbers: I64
    processes: I64
    mapping_names: tuple[MappingName, ...]
    mappings: I64
    ksm_frames: I64
    #: int64[nodes]: page table entries that map a KSM frame, by the frame's node.
    ksm_mappings: I64
    huge_pages: int
    huge_fallback: int
    huge_split_to_move: int


class Dump(NamedTuple):
    """Return page tables and frames, for checks and records."""


class ProcessStatistics(NamedTuple):
    """/proc/PID/ksm_stat."""

    ksm_merging_pages: int
    ksm_rmap_items: int
    ksm_zero_pages: int
    ksm_merge_any: bool
    ksm_mergeable: bool


class NodeDump(NamedTuple):
    """The mapped pages of a node's processes, its frames in use, and the processes that have not ended."""

    #: By page: item key, page table entry, uint16 flags (`cluster.mm.page_state`).
    keys: ItemKeys
    pte: FrameWords
    state: NDArray[np.uint16]
    #: By frame: pfn, mappings, all references, the kernel's `mapping` word, content.
    frames: Pfns
    mapcount: NDArray[np.int32]
    refcount: NDArray[np.int32]
    mapping: NDArray[np.uint16]
    content: Digests
    free_count: int
    #: By page: whether a PMD maps it.
    by_pmd: NDArray[np.bool_]
    processes: dict[int, ProcessStatistics]


ProcessCommand = (
    NewProcess
    | Map
    | Write
    | Pin
    | Read
    | Madvise
    | AdviseHuge
    | SwapIn
    | Collapse
    | SplitParts
    | Zap
    | PageOut
    | Move
    | CountOn
    | MergeAny
    | Fork
    | Exit
    | Reap
)
Command = (
    Populate
    | ShareFrames
    | PinPages
    | DrawAges
    | Tick
    | Scan
    | Decide
    | FindSplits
    | SettleSplits
    | CountUndone
    | PlanWindow
    | Locate
    | SetKnobs
    | UnmergeAll
    | ForgetItems
    | TellUnmapped
    | RemoveStable
    | BeginCompaction
    | EndCompaction
    | TellMappings
    | FindPreferredNodes
    | CountFrames
    | MoveFrames
    | SplitHuge
    | CountMoved
    | CountStayed
    | ProcessCommand
    | FailureCommand
    | Collect
    | CountProcesses
    | Dump
)
Answer = (
    PagesToVisit
    | SplitsSettled
    | Undone
    | Collapsed
    | Located
    | StableNodesLeft
    | PreferredNodes
    | FrameCounts
    | HugeSplit
    | MovedIn
    | PagesStayed
    | PagesOn
    | Exited
    | Reaped
    | PageSeen
    | FrameSeen
    | PagesLost
    | Statistics
    | ProcessCounts
    | NodeDump
)
