"""One NUMA node of the simulated machine: commands and messages in, messages and a report out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, U64, node_of_frame
from cluster.ksm.decide.decide_window import decide
from cluster.ksm.replace_page import Merger
from cluster.ksm.scan import Scanner
from cluster.ksm.trees import Trees
from cluster.machine.workload import Workload
from cluster.mm.faults import Faults
from cluster.mm.frames import Frames
from cluster.mm.mempolicy import Placement
from cluster.mm.node_state import NodeState
from cluster.mm.page_table import ITEM, KSM, PRESENT, STABLE, UNSTABLE, ZEROED
from cluster.mm.syscalls import Processes
from cluster.mm.vma import Mm
from cluster.numa.migrate_frames import Migration
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.digest import Contents
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import KsmSpec, SimulationSpec
from cluster.wire import commands as c
from cluster.wire.mailbox import Inbox, Mail, Outbox
from cluster.wire.messages import Kind

if TYPE_CHECKING:
    # Modules that most machines do without; actors start sooner.
    from cluster.numa.compact_frames import NodeCompaction
    from cluster.numa.relocate_frames import NodeRelocation


@dataclass(frozen=True, slots=True)
class Report:
    """What a node tells the coordinator after a superstep: small, never page data."""

    #: Kinds of the messages sent, and the nodes to which.
    sent: frozenset[Kind]
    to: tuple[int, ...]
    #: The trees may have work in the next window even if no page changes.
    busy: bool
    #: Answer to a command that asks for something.
    answer: dict[str, Any] = field(default_factory=dict)


class Node:
    """A pure state machine. `step` is its only entrance; it neither waits nor looks at a clock."""

    def __init__(self, node: int, spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> None:
        with_bytes = spec.machine.content == "bytes"
        self.state = NodeState(
            id=node,
            nodes=spec.machine.nodes,
            frames=_frames(spec),
            distance=spec.machine.distance,
            knobs=spec.ksm,
            contents=Contents(with_bytes=with_bytes),
            out=Outbox(node, spec.machine.nodes),
            tree_shape=spec.machine.tree_shape,
        )
        placement = Placement(self.state)
        faults = Faults(self.state, placement)
        scanner = Scanner(self.state, faults)
        merger = Merger(self.state, faults, scanner)
        self.scanner = scanner
        self.trees = trees = Trees(self.state)
        migration = Migration(self.state, faults, placement, trees)
        self.processes = Processes(self.state, faults, migration)
        self.workload = Workload(self.state, faults, spec, snapshots)
        self._gauges: tuple[int, dict[str, int]] = (-1, {})
        self._handlers: dict[Kind, Callable[..., None]] = {
            Kind.ALLOC: placement.on_alloc,
            Kind.ALLOC_REPLY: placement.on_alloc_reply,
            Kind.SET_CONTENT: faults.on_set_content,
            Kind.GET: faults.on_get,
            Kind.PUT: faults.on_put,
            Kind.CONTENT_REQUEST: scanner.on_content_request,
            Kind.CONTENT_REPLY: scanner.on_content_reply,
            Kind.EVENT: trees.on_event,
            Kind.WITHDRAW: trees.on_withdraw,
            Kind.STALE: trees.on_stale,
            Kind.DROPPED: self._on_dropped,
            Kind.WAIT: merger.on_wait,
            Kind.REKEY: merger.on_rekey,
            Kind.STABLE: merger.on_stable,
            Kind.MERGE: merger.on_merge,
            Kind.MAKE_KSM: merger.on_make_ksm,
            Kind.COMPARE_SOURCE: merger.on_compare_source,
            Kind.COMPARE_TARGET: merger.on_compare_target,
            Kind.VERDICT: merger.on_verdict,
            Kind.RECOUNT: trees.on_recount,
            Kind.WAIT_FRAME: trees.on_wait_frame,
            Kind.WAIT_CONTENT: trees.on_wait_content,
            Kind.COPY: placement.on_copy,
            Kind.FILL: placement.on_fill,
            Kind.ADDED_TO_STABLE: merger.on_added_to_stable,
            Kind.REMOVED_FROM_TREES: merger.on_removed_from_trees,
            Kind.BREAK: merger.on_break,
            Kind.MAP_ZERO: merger.on_map_zero,
            Kind.PIN: faults.on_pin,
            Kind.UNPIN: faults.on_unpin,
            Kind.SWAP_REQUEST: faults.on_swap_request,
            Kind.SWAP_REPLY: faults.on_swap_reply,
            Kind.MIGRATE: migration.on_migrate,
            Kind.RMAP_WALK: migration.on_rmap_walk,
            Kind.RMAP_FOUND: migration.on_rmap_found,
            Kind.MOVE_IN: migration.on_move_in,
            Kind.MOVED: migration.on_moved,
            Kind.MOVED_OUT: migration.on_moved_out,
            Kind.MIGRATING: trees.on_migrating,
            Kind.UNLINKED: self.state.on_unlinked,
            Kind.LANDED: self.state.on_landed,
            Kind.CACHED: faults.on_cached,
            Kind.UNMAPPED: trees.on_unmapped,
            Kind.ORPHANED: self.state.on_orphaned,
        }
        self._merger, self._faults = merger, faults
        self._relocation: NodeRelocation | None = None
        self._compaction: NodeCompaction | None = None
        if spec.migration is not None:
            from cluster.numa.compact_frames import NodeCompaction
            from cluster.numa.relocate_frames import NodeRelocation

            self._compaction = NodeCompaction(self.state, spec.migration, migration)
            self._handlers[Kind.HELD] = self._compaction.on_held
            self._relocation = NodeRelocation(self.state, self._compaction.frames, migration)
            self._handlers[Kind.MAPPED] = self._relocation.on_mapped

    @property
    def compaction(self) -> NodeCompaction:
        """Its compactors; SimulationError if the scenario has none."""
        if self._compaction is None:
            raise SimulationError("the scenario has no [migration]")
        return self._compaction

    @property
    def relocation(self) -> NodeRelocation:
        """Its part in relocations; SimulationError if the scenario can have none."""
        if self._relocation is None:
            raise SimulationError("the scenario has no [migration]")
        return self._relocation

    def tree_keys(self) -> list[U64]:
        """Those of its processes' mergeable VMAs, a part of the column each."""
        index, key = self.state.spaces.index, self.state.table.tree_key
        return [key[vma.slot0 : vma.slot0 + vma.pages] for vma in index.vmas if vma.mergeable]

    def _on_dropped(self, frames: I64) -> None:
        self._merger.on_dropped(frames)
        self.trees.on_dropped(frames)

    def step(self, command: c.Command | None, inbox: Inbox) -> tuple[Report, Mail]:
        """Takes in the messages, carries out the command, and gives what is to be sent."""
        for kind, columns in inbox.items():
            self._handlers[kind](*columns)
        answer = {} if command is None else self._run(command)
        sends = self.state.out.pack()
        if not sends.tables and isinstance(command, c.Scan | c.Decide):
            # If nobody sends anything, the window is over, and nobody need ask.
            answer = self._collected()
        return Report(frozenset(sends.tables), sends.to, self.trees.busy, answer), sends

    def _run(self, command: c.Command) -> dict[str, Any]:
        match command:
            case c.Populate():
                self.workload.populate(command)
            case c.Tick():
                self.workload.tick(command)
            case c.Scan(window, ranks):
                self._order(ranks)
                self.state.window = window
                self.scanner.scan(window)
            case c.Decide(window):
                decide(self.trees, window)
            case c.SetKnobs() | c.UnmergeAll() | c.ForgetItems() | c.TellUnmapped():
                self._set(command)
            case c.BeginCompaction() | c.EndCompaction():
                return self._compact(command)
            case c.TellMappings() | c.PreferredNodes() | c.CountFrames() | c.MoveFrames() | c.CountMoved():
                return self._relocate(command)
            case c.RemoveStable() | c.CountPages() | c.CountOn() | c.Locate() | c.Collect() | c.Dump():
                return self._answer(command)
            case _:
                return self.processes.run(command)
        return {}

    def _compact(self, command: c.Compaction) -> dict[str, Any]:
        match command:
            case c.BeginCompaction():
                self.compaction.begin()
            case c.EndCompaction(number):
                return {"compaction": self.compaction.end(number)}
        return {}

    def _relocate(self, command: c.Relocation) -> dict[str, Any]:
        match command:
            case c.TellMappings():
                self.relocation.tell_mappings()
            case c.PreferredNodes(min_gain):
                return self.relocation.wish(min_gain)
            case c.CountFrames():
                return self.relocation.count()
            case c.MoveFrames(frames, wished, number):
                self.relocation.move(frames[self.state.id], number, wished=wished)
            case c.CountMoved():
                return {"frames": self.relocation.moved_in}
        return {}

    def _set(self, command: c.SetKnobs | c.UnmergeAll | c.ForgetItems | c.TellUnmapped) -> None:
        """What is written to /sys/kernel/mm/ksm."""
        match command:
            case c.SetKnobs(knobs):
                self._set_knobs(knobs)
            case c.UnmergeAll():
                self.processes.unmerge_all()
            case c.ForgetItems():
                self.trees.forget_items()
            case c.TellUnmapped():
                self._faults.tell_cached()

    def _answer(self, question: c.Question) -> dict[str, Any]:
        match question:
            case c.RemoveStable():
                return {"left": self.trees.remove_unmapped()}
            case c.CountPages(low, ranks):
                self._order(ranks)
                return {"pages": self.scanner.count(low)}
            case c.CountOn(mm):
                return {"pages": self.processes.count_on(question)} if self._has(mm) else {}
            case c.Locate(mm):
                return {"position": self.scanner.locate(question)} if self._has(mm) else {}
            case c.Collect():
                return self._collected()
            case c.Dump():
                return self.dump()

    def _order(self, ranks: I64 | None) -> None:
        if ranks is not None:
            self.state.ranks = ranks

    def _collected(self) -> dict[str, Any]:
        shared, sharing, _, _ = self.trees.counts()
        return {"statistics": self.statistics(), "shared": shared, "sharing": sharing}

    def _has(self, mm: int) -> bool:
        return mm in self.state.spaces.mms

    def _set_knobs(self, knobs: KsmSpec) -> None:
        old = self.state.knobs
        if old.merge_across_nodes != knobs.merge_across_nodes:
            self.processes.change_trees()
            self.state.migrated_stable_nodes.clear()
        self.state.set_knobs(knobs)
        if (old.merge_across_nodes, old.use_zero_pages) != (knobs.merge_across_nodes, knobs.use_zero_pages):
            self.processes.look_again()

    def statistics(self) -> dict[str, int]:
        """Every statistic of this node but pages_shared and pages_sharing: those belong to frames' nodes."""
        n = self.state
        if self._gauges[0] != n.version:
            self._gauges = (n.version, self._page_table_gauges())
        _, _, chains, dups = self.trees.counts()
        return {
            **self._gauges[1],
            "frames_used": n.frames.used,
            "frames_free": n.frames.free_count,
            "ksm_frames": n.frames.ksm_frames,
            "stable_node_chains": chains,
            "stable_node_dups": dups,
            **n.counters,
            "bytes_sent": n.out.bytes_sent,
        }

    def _page_table_gauges(self) -> dict[str, int]:
        n = self.state
        state = n.table.state[: n.table.size]

        def count(flag: int) -> int:
            return int(np.count_nonzero(state & flag))

        nodes = node_of_frame(n.table.pte[rows_with(state, KSM)])
        return {
            "pages_mapped": count(PRESENT),
            "pages_unshared": count(UNSTABLE),
            "rmap_items": count(ITEM),
            "ksm_merging_pages": count(STABLE),
            "ksm_zero_pages": count(ZEROED),
            "ksm_mappings": len(nodes),
            "ksm_mappings_remote": int(np.count_nonzero(nodes != n.id)),
            "ksm_mappings_distance": int(n.distance[n.id][nodes].sum()),
        }

    def dump(self) -> dict[str, Any]:
        """Everything that checks and records need: page tables by item key, and the frames in use."""
        n = self.state
        index = n.spaces.index
        slots = np.concatenate(
            [np.empty(0, np.int64)]
            + [np.arange(v.slot0, v.slot0 + v.pages) for v in index.vmas if not v.unmapped]
        )
        used = n.frames.in_use()
        return {
            "keys": index.keys(slots, index.vma_of(slots)) if len(slots) else slots,
            "pte": n.table.pte[slots],
            "state": n.table.state[slots],
            "frames": used,
            "mapcount": n.frames.mapcount[used],
            "refcount": n.frames.mapcount[used] + n.frames.pins[used],
            "mapping": n.frames.mapping[used],
            "content": n.frames.content[used],
            "free": n.frames.free_count,
            "processes": {mm.id: self._about(mm) for mm in n.spaces.mms.values() if not mm.exited},
        }

    def _about(self, mm: Mm) -> dict[str, Any]:
        merging, items = self.processes.items(mm)
        return {
            "ksm_merging_pages": merging,
            "ksm_rmap_items": items,
            "ksm_zero_pages": self.processes.zero_pages(mm),
            "ksm_merge_any": mm.merge_any,
            "ksm_mergeable": mm.mergeable,
        }


def _frames(spec: SimulationSpec) -> Frames:
    count, with_bytes = spec.machine.frames_per_node, spec.machine.content == "bytes"
    if spec.migration is None:
        return Frames(count, with_bytes=with_bytes)
    from cluster.compaction.movable.movable_frames import MovableFrames
    from cluster.compaction.scenario.fill import empty_memory

    return MovableFrames(empty_memory(count), with_bytes=with_bytes)
