"""The coordinator of the whole machine: processes, knobs, and ksmd's passes (ksm_do_scan())."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import distinct
from cluster.arrays.words import I64, MAX_MMS_PER_NODE, U64, VPN_BITS, Bool, mm_id, node_of_mm
from cluster.compaction.internode.drain import Drained
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.ksm.mm_slot import MmSlots
from cluster.machine.census import Census, joined
from cluster.machine.fabric import Exchange, Fabric
from cluster.machine.relocation import MachineRelocation, MovedFrames
from cluster.machine.replay.fail_memory import MachineMemoryFailure
from cluster.mm.skip_ages import SKIP_FROM_AGE
from cluster.spec.compaction import CompactionSpec, RelocationSpec
from cluster.spec.errors import SimulationError
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import KsmSpec, PolicySpec, ProcessSpec
from cluster.spec.statistics import NODE_NAMES
from cluster.spec.topology import Distances
from cluster.wire import commands as c
from cluster.wire.messages import QUIET, Kind
from cluster.wire.window import END, Window

DEFAULT_POLICY = PolicySpec()

#: smart_scan skips no page before it has failed to merge so often.
_PASSES_TO_MERGE = SKIP_FROM_AGE

#: Messages of a scan that may arrive together with `Decide`: all but those about pages of other nodes.
_AFTER_SCAN = frozenset(Kind) - {Kind.CONTENT_REQUEST, Kind.CONTENT_REPLY}


class WindowEnd(NamedTuple):
    """Where a window ends: before this virtual page of a process (mm)."""

    mm: int
    vpn: int


class Machine:
    """Processes of the simulated machine, and ksmd.

    A process is named by the mm number that `new_process` and `fork` return. Virtual pages are numbered from
    0; a range of pages is its first page and its length.
    """

    def __init__(self, fabric: Fabric, knobs: KsmSpec) -> None:
        self._nodes = fabric.nodes
        self._exchange = Exchange(fabric)
        self.knobs = knobs
        self.slots = MmSlots(fabric.nodes)
        self.full_scans = 0
        #: Time that decides when chains are pruned, in ms. It stands still in scripts
        #: (docs/explanation/exact.md).
        self.now_ms = 0
        self._pruned_ms = 0
        #: `Window.searches` of the next window.
        self.searches = 0.0
        #: Sequence number of the last window or migration.
        self._seq = 0
        self._passes = 0
        self._mms_of_node = [0] * fabric.nodes
        #: When captured processes begin that were not there at the start, in simulated seconds.
        self._begins: list[float] = []
        #: Processes that may have lost their last mergeable page since ksmd last passed over them.
        self._doubtful: set[int] = set()
        #: Whether there may be huge pages.
        self._huge = False
        #: The processes among `_doubtful` that have ended.
        self._exited: set[int] = set()
        self.memory_failure = MachineMemoryFailure(self._exchange, self._next_seq, PROFILES[knobs.kernel])
        self._relocation = MachineRelocation(self._exchange, fabric.nodes, self._next_seq)

    # Processes.

    def populate(self, kinds: tuple[ProcessSpec, ...]) -> None:
        """Create the scenario's processes, in blocks over the nodes, and register them in that order."""
        kind_of = np.repeat(np.arange(len(kinds)), [k.total for k in kinds])
        nodes = np.concatenate([_nodes_of(k, self._nodes) for k in kinds])
        most = np.bincount(nodes).max(initial=0)
        if most > MAX_MMS_PER_NODE:
            raise SimulationError(
                f"a node has {most:,} processes; the most is {MAX_MMS_PER_NODE:,}: use fewer, or more nodes"
            )
        self._huge = any(kind.huge for kind in kinds)
        self._exchange.run(c.Populate(kind_of.astype(np.int32), nodes.astype(np.int32)))
        layouts = [k.layout for k in kinds if k.layout]
        self._begins = sorted({begin for layout in layouts for begin in layout.begins if begin > 0})
        if any(k.layout or k.workers for k in kinds):
            self._exchange.run(c.ShareFrames())
        if any(k.pins for k in kinds):
            self._exchange.run(c.PinPages())
        mergeable = np.concatenate([_mergeable(k) for k in kinds])
        mms = [self._next_mm(node) for node in nodes.tolist()]
        self.slots.enter([mm for mm, registers in zip(mms, mergeable.tolist(), strict=True) if registers])

    def reach_steady_state(self) -> None:
        """Bring KSM into the state that it has long after it was switched on, before any time passes.

        All pages that can merge are merged after three passes, in which smart_scan skips none. A fourth one
        visits and skips pages by the ages that have been drawn then.
        """
        for _ in range(_PASSES_TO_MERGE):
            self.scan()
        self._exchange.run(c.DrawAges())
        self.scan()
        self.full_scans = 0

    def _next_mm(self, node: int) -> int:
        if self._mms_of_node[node] == MAX_MMS_PER_NODE:
            raise SimulationError(f"node {node} has had {MAX_MMS_PER_NODE:,} processes, which is the most")
        self._mms_of_node[node] += 1
        return mm_id(node, self._mms_of_node[node] - 1)

    def new_process(self, node: int = 0) -> int:
        """Create a process on a node, and return its mm number. ksmd's list does not change."""
        mm = self._next_mm(node)
        self._exchange.run(c.NewProcess(mm))
        return mm

    def map(self, mm: int, start: int, count: int, policy: PolicySpec = DEFAULT_POLICY) -> None:
        """Map a range of untouched pages (mmap())."""
        self._exchange.run(c.Map(mm, start, count, policy))

    def write(self, mm: int, vpns: I64, ids: U64 | None) -> None:
        """Write the contents with these ids to whole pages, None for what they hold; `vpns` are distinct."""
        self._exchange.run(c.Write(mm, vpns, ids))

    def pin(self, mm: int, start: int, count: int) -> None:
        """Give pages of a range frames of their own, and pin these until they are unmapped."""
        self.write(mm, np.arange(start, start + count), None)
        self._exchange.run(c.Pin(mm, start, count))

    def read(self, mm: int, start: int, count: int) -> None:
        """Read a range: untouched pages map the zero page, and pages come back from swap."""
        self._exchange.run(c.Read(mm, start, count))

    def madvise(self, mm: int, start: int, count: int, *, mergeable: bool) -> None:
        """MADV_MERGEABLE, which registers the process, or MADV_UNMERGEABLE (ksm_madvise())."""
        self._exchange.run(c.Madvise(mm, start, count, mergeable))
        if mergeable:
            self.register(mm)
        else:
            self._doubtful.add(mm)

    def advise_huge(self, mm: int, start: int, count: int) -> None:
        """Let page faults map huge pages in a range (MADV_HUGEPAGE)."""
        self._huge = True
        self._exchange.run(c.AdviseHuge(mm, start, count))

    def collapse(self, mm: int, start: int, count: int) -> str:
        """Make huge pages of the pages of a range (MADV_COLLAPSE); return the name of the error, if any."""
        self._huge = True
        self._exchange.run(c.SwapIn(mm, start, count))
        return self._exchange.answer(c.Collapse(mm, start, count), c.Collapsed).error

    def dontneed(self, mm: int, start: int, count: int) -> None:
        """Free the frames of a range; its pages are untouched then (MADV_DONTNEED)."""
        self._exchange.run(c.Zap(mm, start, count, unmap=False))

    def unmap(self, mm: int, start: int, count: int) -> None:
        """Unmap a range (munmap()); ksmd frees its rmap_items later."""
        self._exchange.run(c.Zap(mm, start, count, unmap=True))
        self._doubtful.add(mm)

    def pageout(self, mm: int, start: int, count: int, *, swap: bool = True) -> None:
        """Write a range to swap, which is never full (MADV_PAGEOUT); without swap, only split huge pages."""
        if self._huge:
            self._exchange.run(c.SplitParts(mm, start, count, -1))
        if swap:
            self._exchange.run(c.PageOut(mm, start, count))

    def move(self, mm: int, start: int, count: int, to: int) -> int:
        """Migrate a range to a node (move_pages(), MPOL_MF_MOVE_ALL); return how many pages are there."""
        if self._huge:
            self._exchange.run(c.SplitParts(mm, start, count, to))
        self._exchange.run(c.Move(mm, start, count, to, self._next_seq()))
        return self._exchange.answer(c.CountOn(mm, start, count, to), c.PagesOn).nr_pages

    def merge_any(self, mm: int, *, on: bool) -> None:
        """Make all memory of the process mergeable, now and later, and register the process.

        Unless `on`, unmerge all of it, and make it not mergeable.
        """
        self._exchange.run(c.MergeAny(mm, on))
        if on:
            self.register(mm)
        self._doubtful.add(mm)

    def register(self, mm: int) -> None:
        """Enter a process into ksmd's list, if it is not there."""
        if mm not in self.slots:
            self.slots.enter([mm])

    def fork(self, parent: int) -> int:
        """Create a child on the parent's node, and return its mm number; register it as the parent is."""
        child = self._next_mm(node_of_mm(parent))
        self._exchange.run(c.Fork(parent, child))
        if parent in self.slots:
            self.slots.enter([child])
            self._doubtful.add(child)
        return child

    def exit(self, mm: int) -> None:
        """End a process; it stays in ksmd's list until ksmd has passed over its rmap_items."""
        has_items = self._exchange.answer(c.Exit(mm), c.Exited).has_items
        if mm not in self.slots or self.slots.exit(mm, items=has_items):
            self._doubtful.discard(mm)
            self._exchange.run(c.Reap(mm))
        else:
            self._doubtful.add(mm)
            self._exited.add(mm)

    def unmerge_all(self) -> None:
        """Undo every merge, forget all rmap_items, and begin a new pass (run=2, then 0)."""
        self._exchange.run(c.UnmergeAll())
        self._exchange.run(c.ForgetItems())
        self.remove_stable()
        for mm in self._exited & set(self.slots.mms):
            self.slots.remove(mm)
        self._doubtful -= self._exited
        self._exited.clear()
        self.slots.start_pass()
        self.full_scans = 0

    def remove_stable(self) -> bool:
        """Remove stable nodes whose frames no page maps; return whether no stable node is left."""
        self._exchange.run(c.TellUnmapped())
        return not any(answer.left for answer in self._exchange.answers(c.RemoveStable(), c.StableNodesLeft))

    def tick(self, start: float, stop: float) -> None:
        """Carry out the workload's writes in an interval of simulated seconds."""
        for begin in [begin for begin in self._begins if start <= begin < stop]:
            after = math.nextafter(begin, math.inf)
            self._tick(start, after)
            self._exchange.run(c.ShareFrames())
            start = after
        self._tick(start, stop)

    def _tick(self, start: float, stop: float) -> None:
        # PUT may cause messages to the trees; these are in time even if they come after the next command.
        self._exchange.run(c.Tick(start, stop), leave=QUIET | {Kind.PUT})

    def set_knobs(self, **knobs: int) -> None:
        """Set knobs of ksmd, here and on all nodes."""
        self.knobs = replace(self.knobs, **knobs)  # type: ignore[arg-type]
        self._exchange.run(c.SetKnobs(self.knobs))

    # ksmd.

    def scan(self, count: int | None = None) -> bool:
        """Scan at most `count` pages, or to the end of the pass; return whether the pass has ended.

        Moves the cursor of ksmd's list, and removes processes without mergeable memory from it. The last
        decisions may still be on their way to the nodes; they arrive before anything else is done.
        """
        if not self.ksmd_should_run or count == 0:
            return False
        ended = self._scan_until(END if count is None else self._position_after(count))
        if self._huge and not ended:
            # Pages that splits took away do not count: others are visited in their place.
            answers = self._exchange.answers(c.CountUndone(), c.Undone)
            return self.scan(sum(answer.nr_pages for answer in answers))
        return ended

    @property
    def ksmd_should_run(self) -> bool:
        """Whether ksmd has anything to do (ksmd_should_run())."""
        return self.knobs.run == 1 and len(self.slots) > 0

    def plan_windows(self, windows_for: Callable[[int], int]) -> list[WindowEnd | None]:
        """Divide a pass that is about to begin into windows with equally many pages to visit.

        `windows_for` is given the number of pages, and returns the most windows. Returns the end of each
        window; None stands for the end of the pass.
        """
        counts = self._pages_to_visit()
        count = windows_for(sum(counts.values()))
        mms = np.array([mm for mm in self.slots.mms if counts.get(mm)], np.int64)
        pages = np.array([counts[mm] for mm in mms.tolist()], np.int64)
        ends = np.cumsum(pages)
        # The window's last page, counted from the start of the pass, and the process that it belongs to.
        last = distinct(np.arange(1, count) * pages.sum() // count)
        last = last[last > 0]
        of = np.searchsorted(ends, last)
        return [*self._locate(mms[of], last - (ends - pages)[of]), None]

    def scan_to(self, end: WindowEnd | None) -> bool:
        """Scan to the end of a planned window; return whether the pass has ended."""
        if end is not None and end.mm not in self.slots:
            return False
        high = END if end is None else (self.slots.mms.index(end.mm) << VPN_BITS) | end.vpn
        return self._scan_until(high) if high > self.slots.low else False

    def _scan_until(self, high: int) -> bool:
        self._run_window(self._next_window(high))
        entered = self.slots.rank if self.slots.vpn == 0 else self.slots.rank + 1
        passed = self.slots.mms[entered : high >> VPN_BITS]
        if high == END:
            self.slots.start_pass()
            self.full_scans += 1
        else:
            self.slots.moved_to(high)
        self._reap(passed)
        return high == END

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _next_window(self, high: int) -> Window:
        first = not self.slots.in_pass
        self._passes += first
        due = self.now_ms >= self._pruned_ms + self.knobs.stable_node_chains_prune_millisecs
        if due and high == END:
            self._pruned_ms = self.now_ms
        low, seq = self.slots.low, self._next_seq()
        return Window(self._passes, low, high, seq, first, due, self.searches, self._huge)

    def _run_window(self, window: Window) -> None:
        reports = self._exchange.run(c.Scan(window, self.slots.ranks()), leave=_AFTER_SCAN)
        if any(r.busy or r.sent for r in reports):
            if window.huge:
                self._find_splits(window)
            self._exchange.begin(c.Decide(window))

    def _find_splits(self, window: Window) -> None:
        """Let the nodes decide the window until they agree on which visits split which huge pages."""
        first = changed = True
        while changed:
            self._exchange.begin(c.FindSplits(window, first))
            answers = self._exchange.answers(c.SettleSplits(), c.SplitsSettled)
            first, changed = False, any(answer.changed for answer in answers)

    def _position_after(self, count: int) -> int:
        """Return the scan position after the next `count` pages to visit, END if there are fewer."""
        counts = self._pages_to_visit()
        for rank in range(self.slots.rank, len(self.slots)):
            mm = self.slots.mms[rank]
            of_mm = counts.get(mm, 0)
            if of_mm >= count:
                (end,) = self._locate(np.array([mm]), np.array([count]))
                return (rank << VPN_BITS) | end.vpn
            count -= of_mm
        return END

    def _locate(self, mms: I64, nr_pages: I64) -> list[WindowEnd]:
        """Return where each process has had its number of pages to visit, counted from the cursor on."""
        found: dict[int, int] = {}
        for answer in self._exchange.answers(c.Locate(self.slots.low, mms, nr_pages), c.Located):
            found.update(answer.vpn)
        return [WindowEnd(mm, found[i]) for i, mm in enumerate(mms.tolist())]

    def _pages_to_visit(self) -> dict[int, int]:
        """Return how many pages of each process (mm) ksmd would visit until the end of the pass."""
        command = c.PlanWindow(self.slots.low, self.slots.ranks())
        counts: dict[int, int] = {}
        for answer in self._exchange.answers(command, c.PagesToVisit):
            counts.update(answer.of_mm)
        return counts

    def _reap(self, passed: tuple[int, ...]) -> None:
        """Free what the scan passed over; remove processes without mergeable memory from ksmd's list."""
        for mm in [mm for mm in passed if mm in self._doubtful]:
            reaped = self._exchange.answer(c.Reap(mm), c.Reaped)
            if reaped.unmergeable:
                self.slots.remove(mm)
                self._exited.discard(mm)
            if not reaped.incomplete:
                self._doubtful.discard(mm)

    # Compaction and relocation.

    def compact(self, spec: CompactionSpec, compactor_pool: CompactorPool) -> tuple[NodeReport, ...]:
        """Run compactors on all nodes until they are done; return the outcome of each node."""
        self._exchange.run(c.BeginCompaction())
        drive(spec, range(self._nodes), compactor_pool)
        return tuple(self._exchange.answers(c.EndCompaction(self._next_seq()), NodeReport))

    def relocate(self, spec: RelocationSpec, distance: Distances) -> MovedFrames:
        """Move frames of processes between nodes; return how many moved."""
        return self._relocation.relocate(spec, distance, huge=self._huge)

    def drained(self, spec: RelocationSpec) -> dict[int, Drained]:
        """Return what stayed on the nodes that this relocation, the last one, has drained."""
        return self._relocation.drained(spec)

    def settle(self) -> None:
        """Let all messages arrive."""
        self._exchange.settle_all()

    # Statistics and dumps; these change nothing.

    def collect(self) -> dict[str, I64]:
        """Return every statistic so far, counters since the start: int64[nodes] by name."""
        reports = self._exchange.reports
        answers = [r.answer for r in reports if isinstance(r.answer, c.Statistics)]
        if not answers or len(answers) < len(reports) or any(r.sent for r in reports):
            answers = self._exchange.ask(c.Collect(), c.Statistics)
        return joined_statistics(answers)

    def census(self) -> Census:
        """Return what ksmd has made of each process and mapping."""
        return joined(self._exchange.ask(c.CountProcesses(), c.ProcessCounts))

    def dump(self) -> list[c.NodeDump]:
        """Return page tables and frames by node, for checks and records."""
        return self._exchange.answers(c.Dump(), c.NodeDump)


def _nodes_of(kind: ProcessSpec, nodes: int) -> I64:
    """Return the nodes of a kind's processes: blocks, but processes that share frames stay together."""
    placed = kind.placed(nodes)
    if kind.layout is None:
        return np.repeat(placed, 1 + kind.workers)
    index = np.arange(kind.count)
    captured = index % len(kind.layout.families)
    of_family: I64 = placed[index - captured + np.array(kind.layout.families)[captured]]
    return of_family


def _mergeable(kind: ProcessSpec) -> Bool:
    """Return which of a kind's processes have memory that ksmd scans: bool[count]."""
    if kind.layout is None:
        return np.full(kind.total, any(region.mergeable for region in kind.regions))
    return np.resize(np.array(kind.layout.mergeable), kind.count)


def joined_statistics(answers: list[c.Statistics]) -> dict[str, I64]:
    """Join the statistics of all nodes, in ascending order: int64[nodes] by name."""
    names = (*NODE_NAMES, *HIDDEN)
    # One array: to make one for each name takes half of the time of a steady pass.
    counts = np.array([[answer.counts.get(name, 0) for answer in answers] for name in names], np.int64)
    columns = dict(zip(names, counts, strict=True))
    columns["pages_shared"] = np.sum([answer.shared for answer in answers], axis=0)
    columns["pages_sharing"] = np.sum([answer.sharing for answer in answers], axis=0)
    tracked = columns["ksm_merging_pages"] + columns["pages_unshared"]
    columns["pages_volatile"] = np.maximum(columns["rmap_items"] - tracked, 0)
    return columns


#: Counters that are not statistics: they serve the model of ksmd's time, swap and records.
HIDDEN = (
    "checksums",
    "huge_checksums",
    "changed",
    "ksm_swpin_copy",
    "ksm_zero_pages_missed",
    "thp_fault_fallback",
    "thp_collapse_alloc",
    "thp_collapse_alloc_failed",
    "thp_deferred_split_page",
    "thp_underused_split_page",
    "thp_zero_page_alloc",
)
