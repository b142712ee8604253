"""The whole machine as its coordinator sees it: processes, knobs, and ksmd's passes (ksm_do_scan())."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cluster.arrays.words import I64, U64, VPN_BITS, Bool, mm_id, node_of_mm
from cluster.compaction.internode.flows import matrix, transfers
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.ksm.mm_slot import MmSlots
from cluster.machine.fabric import QUIET, Exchange, Fabric
from cluster.machine.node import Report
from cluster.numa.relocate_frames import granted
from cluster.spec.compaction import CompactionSpec, RelocationSpec
from cluster.spec.scenario import KsmSpec, PolicySpec, ProcessSpec
from cluster.spec.statistics import NODE_NAMES
from cluster.spec.topology import Distances
from cluster.wire import commands as c
from cluster.wire.messages import Kind
from cluster.wire.window import END, Window

DEFAULT_POLICY = PolicySpec()

#: What nodes send in a scan comes with the decision, but for questions about pages of other nodes.
_AFTER_SCAN = frozenset(Kind) - {Kind.CONTENT_REQUEST, Kind.CONTENT_REPLY}


class Machine:
    """Operations on simulated processes, and ksmd.

    Processes are named by the number that `new_process` gives. Virtual pages are numbered from 0.
    """

    def __init__(self, fabric: Fabric, knobs: KsmSpec) -> None:
        self._nodes = fabric.nodes
        self._exchange = Exchange(fabric)
        self.knobs = knobs
        self.slots = MmSlots(fabric.nodes)
        self.full_scans = 0
        #: Simulated time; it decides when chains are pruned, and stands still unless somebody sets it.
        self.now_ms = 0
        self._pruned_ms = 0
        #: Windows and migrations so far.
        self._number = 0
        self._passes = 0
        self._mms_of_node = [0] * fabric.nodes
        #: Processes that may have lost their last mergeable page since ksmd last came by.
        self._doubtful: set[int] = set()
        #: Those of them that have ended.
        self._exited: set[int] = set()

    # Processes.

    def populate(self, kinds: tuple[ProcessSpec, ...]) -> None:
        """Creates the scenario's processes, in blocks over the nodes, and registers them in that order."""
        kind_of = np.repeat(np.arange(len(kinds)), [k.count for k in kinds])
        nodes = np.concatenate([spread(k.count, self._nodes) for k in kinds])
        self._exchange.run(c.Populate(kind_of.astype(np.int32), nodes.astype(np.int32)))
        mergeable = np.array([k.snapshot is not None or any(r.mergeable for r in k.regions) for k in kinds])
        registered = []
        for kind, node in zip(kind_of, nodes, strict=True):
            mm = self._next_mm(int(node))
            if mergeable[kind]:
                registered.append(mm)
        self.slots.enter(registered)

    def _next_mm(self, node: int) -> int:
        self._mms_of_node[node] += 1
        return mm_id(node, self._mms_of_node[node] - 1)

    def new_process(self, node: int = 0) -> int:
        mm = self._next_mm(node)
        self._exchange.run(c.NewProcess(mm))
        return mm

    def map(self, mm: int, start: int, pages: int, policy: PolicySpec = DEFAULT_POLICY) -> None:
        self._exchange.run(c.Map(mm, start, pages, policy))

    def write(self, mm: int, vpns: I64, ids: U64) -> None:
        """Whole pages get the contents with these ids; `vpns` are distinct."""
        self._exchange.run(c.Write(mm, vpns, ids))

    def read(self, mm: int, start: int, pages: int) -> None:
        self._exchange.run(c.Read(mm, start, pages))

    def madvise(self, mm: int, start: int, pages: int, *, mergeable: bool) -> None:
        """MADV_MERGEABLE or MADV_UNMERGEABLE (ksm_madvise())."""
        self._exchange.run(c.Madvise(mm, start, pages, mergeable))
        if mergeable:
            self.register(mm)
        else:
            self._doubtful.add(mm)

    def dontneed(self, mm: int, start: int, pages: int) -> None:
        self._exchange.run(c.Drop(mm, start, pages, unmap=False))

    def unmap(self, mm: int, start: int, pages: int) -> None:
        self._exchange.run(c.Drop(mm, start, pages, unmap=True))
        self._doubtful.add(mm)

    def pageout(self, mm: int, start: int, pages: int) -> None:
        """MADV_PAGEOUT, to swap that is never full."""
        self._exchange.run(c.PageOut(mm, start, pages))

    def move(self, mm: int, start: int, pages: int, to: int) -> int:
        """move_pages() with MPOL_MF_MOVE_ALL; returns how many of the pages are on node `to` then."""
        self._exchange.run(c.Move(mm, start, pages, to, self._next_number()))
        reports = self._exchange.run(c.CountOn(mm, start, pages, to))
        return int(next(r.answer["pages"] for r in reports if r.answer))

    def merge_any(self, mm: int) -> None:
        """All memory of the process becomes mergeable, now and later."""
        self._exchange.run(c.MergeAny(mm))
        self.register(mm)
        self._doubtful.add(mm)

    def register(self, mm: int) -> None:
        """Enters a process into ksmd's list, if it is not there."""
        if mm not in self.slots:
            self.slots.enter([mm])

    def fork(self, parent: int) -> int:
        """The child runs on the parent's node."""
        child = self._next_mm(node_of_mm(parent))
        self._exchange.run(c.Fork(parent, child))
        if parent in self.slots:
            self.slots.enter([child])
            self._doubtful.add(child)
        return child

    def exit(self, mm: int) -> None:
        reports = self._exchange.run(c.Exit(mm))
        items = any(report.answer.get("items") for report in reports)
        if mm not in self.slots or self.slots.exit(mm, items=items):
            self._doubtful.discard(mm)
            self._exchange.run(c.Reap(mm))
        else:
            self._doubtful.add(mm)
            self._exited.add(mm)

    def unmerge_all(self) -> None:
        """run=2, then 0: undoes every merge and forgets all rmap_items."""
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
        """Removes stable nodes that nobody maps; returns whether there are none left."""
        self._exchange.run(c.TellUnmapped())
        reports = self._exchange.run(c.RemoveStable())
        return not any(report.answer["left"] for report in reports)

    def tick(self, start: float, stop: float) -> None:
        """The workload's writes in an interval of simulated seconds."""
        # Frames that go may tell the trees so: that is in time even if it comes after the next command.
        self._exchange.run(c.Tick(start, stop), leave=QUIET | {Kind.PUT})

    def set_knobs(self, **knobs: int) -> None:
        self.knobs = replace(self.knobs, **knobs)  # type: ignore[arg-type]
        self._exchange.run(c.SetKnobs(self.knobs))

    # ksmd.

    def scan(self, pages: int | None = None) -> bool:
        """At most `pages` pages, or to the end of the pass; returns whether the pass came to its end.

        What was decided last may still be under way to the nodes: it arrives before anything else is done.
        """
        if self.knobs.run != 1 or len(self.slots) == 0 or pages == 0:
            return False
        high = END if pages is None else self._behind(pages)
        window = self._next_window(high)
        self._window(window)
        entered = self.slots.rank if self.slots.vpn == 0 else self.slots.rank + 1
        passed = self.slots.mms[entered : high >> VPN_BITS]
        if high == END:
            self.slots.start_pass()
            self.full_scans += 1
        else:
            self.slots.moved_to(high)
        self._reap(passed)
        return high == END

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _next_window(self, high: int) -> Window:
        first = not self.slots.in_pass
        self._passes += first
        due = self.now_ms >= self._pruned_ms + self.knobs.stable_node_chains_prune_millisecs
        if due and high == END:
            self._pruned_ms = self.now_ms
        return Window(self._passes, self.slots.low, high, self._next_number(), first, due)

    def _window(self, window: Window) -> None:
        reports = self._exchange.run(c.Scan(window, self.slots.ranks()), leave=_AFTER_SCAN)
        if any(r.busy or r.sent for r in reports):
            self._exchange.begin(c.Decide(window))

    def _behind(self, pages: int) -> int:
        """The scan position behind the next `pages` pages, END if there are fewer."""
        reports = self._exchange.run(c.CountPages(self.slots.low, self.slots.ranks()))
        counts: dict[int, int] = {}
        for report in reports:
            counts.update(report.answer["pages"])
        for rank in range(self.slots.rank, len(self.slots)):
            mm = self.slots.mms[rank]
            count = counts.get(mm, 0)
            if count >= pages:
                low = max(self.slots.low, rank << VPN_BITS)
                return self._locate(mm, low, pages)
            pages -= count
        return END

    def _locate(self, mm: int, low: int, pages: int) -> int:
        reports = self._exchange.run(c.Locate(mm, low, pages))
        return int(next(r.answer["position"] for r in reports if r.answer))

    def _reap(self, passed: tuple[int, ...]) -> None:
        """Processes that the scan went through and that have nothing mergeable lose their place."""
        for mm in [mm for mm in passed if mm in self._doubtful]:
            reports = self._exchange.run(c.Reap(mm))
            if any(r.answer.get("gone") for r in reports):
                self.slots.remove(mm)
                self._exited.discard(mm)
            if not any(r.answer.get("again") for r in reports):
                self._doubtful.discard(mm)

    # Compaction.

    def compact(self, spec: CompactionSpec, compactor_pool: CompactorPool) -> tuple[NodeReport, ...]:
        """Compactors at work on all nodes, until they are done; what became of each node."""
        self._exchange.run(c.BeginCompaction())
        drive(spec, range(self._nodes), compactor_pool)
        reports = self._exchange.run(c.EndCompaction(self._next_number()))
        return tuple(report.answer["compaction"] for report in reports)

    def relocate(self, spec: RelocationSpec, distance: Distances) -> I64:
        """Moves frames of processes between nodes; how many, from row to column. int64[nodes, nodes]."""
        nodes = self._nodes
        chosen = np.isin(np.arange(nodes), spec.nodes) if spec.nodes else np.ones(nodes, np.bool_)
        if spec.kind == "nearer":
            frames = self._wished(spec, chosen)
        else:
            counts = self._exchange.run(c.CountFrames())
            census = np.array([report.answer["frames"] for report in counts])
            frames = matrix(transfers(spec.kind, census, chosen, distance, spec.most_pages), nodes)
        self._exchange.run(c.MoveFrames(frames, spec.kind == "nearer", self._next_number()))
        moved = [report.answer["frames"] for report in self._exchange.run(c.CountMoved())]
        return np.array(moved).T

    def _wished(self, spec: RelocationSpec, chosen: Bool) -> I64:
        self._exchange.run(c.TellMappings())
        answers = [report.answer for report in self._exchange.run(c.PreferredNodes(spec.min_gain))]
        wishes = np.array([answer["frames"] for answer in answers]) * chosen[:, None]
        return granted(wishes, np.array([answer["free"] for answer in answers]), spec.most_pages)

    # What it came to.

    def collect(self) -> dict[str, I64]:
        """Every statistic so far, counters since the start: int64[nodes] by name."""
        reports = self._exchange.reports
        if not all("statistics" in report.answer for report in reports) or any(r.sent for r in reports):
            reports = self._exchange.ask(c.Collect())
        return statistics_of(reports)

    def dump(self) -> list[dict[str, Any]]:
        """Page tables and frames by node, for checks and records."""
        return [report.answer for report in self._exchange.run(c.Dump())]


def spread(count: int, nodes: int) -> I64:
    """The nodes of `count` processes in blocks: as many on each node as on any other, or one more."""
    return np.arange(count) * nodes // max(count, 1)


def statistics_of(reports: list[Report]) -> dict[str, I64]:
    """The nodes' answers to Collect, put together."""
    rows = [report.answer["statistics"] for report in reports]
    columns = {
        name: np.array([row.get(name, 0) for row in rows], np.int64) for name in (*NODE_NAMES, *HIDDEN)
    }
    columns["pages_shared"] = np.sum([r.answer["shared"] for r in reports], axis=0)
    columns["pages_sharing"] = np.sum([r.answer["sharing"] for r in reports], axis=0)
    tracked = columns["ksm_merging_pages"] + columns["pages_unshared"]
    columns["pages_volatile"] = np.maximum(columns["rmap_items"] - tracked, 0)
    return columns


#: Counters that are no statistics: of the model of ksmd's time, and of swap.
HIDDEN = ("checksums", "changed", "ksm_swpin_copy")
