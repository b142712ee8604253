"""One NUMA node of the simulated machine: a command and messages in, messages and a report out.

The handlers of all commands and messages are in two tables here; the packages that own the state carry them
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import numpy as np

from cluster.arrays.words import I64, U64, FrameWords, empty, node_of_mm
from cluster.ksm.merge_window import HugeWindow, merge_window
from cluster.ksm.replace_page import Merger
from cluster.ksm.scan import Scanner
from cluster.ksm.split_huge import HugeSplitter
from cluster.ksm.trees import Trees
from cluster.machine.census import count_node
from cluster.machine.node_view import NodeView
from cluster.machine.workload import Workload
from cluster.mm.faults import Faults
from cluster.mm.frames import Frames
from cluster.mm.huge.allocate import HugeAllocator
from cluster.mm.huge.mappings import HugeMappings
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_table import PageTable
from cluster.mm.processes import Processes
from cluster.numa.migrate_frames import FrameMigration
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.digest import Contents
from cluster.spec.scenario import PolicySpec, SimulationSpec
from cluster.wire import commands as c
from cluster.wire.mailbox import Inbox, Mail, Outbox
from cluster.wire.messages import QUIET, Kind

if TYPE_CHECKING:
    # Modules that most machines do without; actors start sooner.
    from cluster.compaction.scenario.node_report import NodeReport
    from cluster.mm.huge.collapse import Collapser
    from cluster.numa.compact_frames import NodeCompaction
    from cluster.plugins.placement_policy import CheckedPolicy

    Answer = c.Answer | NodeReport

#: A command of a process, and the answer to it.
Of = TypeVar("Of", bound=c.ProcessCommand)
A = TypeVar("A")


class Report(NamedTuple):
    """What a node tells the coordinator after a superstep: small, never page data."""

    #: Kinds of the messages sent, and the nodes to which.
    sent: frozenset[Kind]
    to: tuple[int, ...]
    #: The trees may have work in the next window even if no page changes.
    busy: bool
    #: The answer to the command, None if there is none.
    answer: Answer | None = None


class Node:
    """A pure state machine. `step` is its only entrance; it neither waits nor looks at a clock."""

    def __init__(self, node: int, spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> None:
        self.state = NodeState(
            id=node,
            nodes=spec.machine.nodes,
            frames=_frames(spec),
            distance=spec.machine.distance,
            knobs=spec.ksm,
            contents=Contents(with_bytes=spec.machine.content == "bytes"),
            out=Outbox(node, spec.machine.nodes),
            tree_shape=spec.machine.tree_shape,
            ordered_contents=spec.ordered_contents,
        )
        self._allocator = PageAllocator(self.state, _policies(spec, node))
        self._huge_allocator = HugeAllocator(self.state)
        self._huge = HugeMappings(self.state, self._allocator, self._huge_allocator)
        self._faults = Faults(self.state, self._allocator, self._huge, self._huge_allocator)
        self.scanner = Scanner(self.state, self._faults)
        self._merger = Merger(self.state, self._faults, self.scanner)
        self.trees = Trees(self.state)
        self._splitter = HugeSplitter(self.state, self.trees, self._faults, self._huge)
        #: The window that is being decided, if there may be huge pages.
        self._huge_window: HugeWindow | None = None
        self._migration = FrameMigration(self.state, self._faults, self._allocator, self.trees)
        self.processes = Processes(self.state, self._faults, self._huge)
        self.workload = Workload(self.state, self._faults, self.processes, spec, snapshots)
        self._view = NodeView(self.state, self.trees, self.processes)
        self._commands = self._command_table()
        self._messages = self._message_table()
        #: The node's compactors; None if the scenario has no [migration].
        self.compaction: NodeCompaction | None = None
        if spec.migration is not None:
            self._add_compaction(spec)
        if Outbox.check:
            for kind in QUIET & self._messages.keys():
                self._messages[kind] = self._quietly(kind, self._messages[kind])

    def step(self, command: c.Command | None, inbox: Inbox) -> tuple[Report, Mail]:
        """Take in the messages, then carry out the command; return the report and the messages to send."""
        for kind, columns in inbox.items():
            self._messages[kind](*columns)
        answer = None if command is None else self._commands[type(command)](command)
        if PageTable.validating:
            self.state.validate()
        mail = self.state.out.pack()
        if not mail.tables and isinstance(command, c.Scan | c.Decide):
            # If no node sends a message, the window is over, and the coordinator need not ask.
            answer = self._view.statistics()
        return Report(frozenset(mail.tables), mail.to, self.trees.busy, answer), mail

    def tree_keys(self) -> list[U64]:
        """Return the `tree_key` column of mergeable VMAs, one part a VMA."""
        index, key = self.state.spaces.index, self.state.table.tree_key
        return [key[vma.slot0 : vma.slot0 + vma.pages] for vma in index.vmas if vma.mergeable]

    # Commands.

    def _command_table(self) -> dict[type, Callable[[Any], Answer | None]]:
        """Return the handler of each command, which returns the command's answer."""
        own, processes, faults = self._if_own, self.processes, self._faults
        trees, view = self.trees, self._view
        return {
            c.Populate: self.workload.populate,
            c.ShareFrames: lambda _: self.workload.share_frames(),
            c.PinPages: lambda _: self.workload.pin_pages(),
            c.DrawAges: lambda _: self.workload.draw_ages(),
            c.Tick: self.workload.tick,
            c.Scan: self._scan,
            c.Decide: self._decide,
            c.FindSplits: self._find_splits,
            c.SettleSplits: lambda _: c.SplitsSettled(self._splitter.settle()),
            c.CountUndone: lambda _: c.Undone(self._splitter.undone),
            c.PlanWindow: self._plan_window,
            c.Locate: lambda command: c.Located(self.scanner.locate(command)),
            c.SetKnobs: self._set_knobs,
            c.UnmergeAll: lambda _: processes.unmerge_all(),
            c.ForgetItems: lambda _: trees.forget_items(),
            c.TellUnmapped: lambda _: faults.tell_cached(),
            c.RemoveStable: lambda _: c.StableNodesLeft(trees.remove_unmapped()),
            c.NewProcess: own(processes.new_process),
            c.Map: own(processes.mmap),
            c.Write: own(processes.write),
            c.Read: own(processes.read),
            c.Pin: own(processes.pin),
            c.Madvise: own(processes.madvise),
            c.AdviseHuge: own(processes.advise_huge),
            c.SwapIn: own(self._swap_in),
            c.Collapse: own(self._collapse),
            c.SplitParts: own(self._split_parts),
            c.Zap: own(processes.zap),
            c.PageOut: own(processes.page_out),
            c.Move: self._move_pages,
            c.CountOn: own(self._count_on),
            c.MergeAny: own(processes.set_merge_any),
            c.Fork: own(processes.fork),
            c.Exit: own(processes.exit),
            c.Reap: own(processes.reap),
            **dict.fromkeys(get_args(c.FailureCommand), self._fail_memory),
            c.Collect: lambda _: view.statistics(),
            c.CountProcesses: lambda _: count_node(self.state, self.workload.names),
            c.Dump: lambda _: view.dump(),
        }

    def _if_own(self, run: Callable[[Of], A]) -> Callable[[Of], A | None]:
        """Return a handler that only the node of the process carries out."""

        def run_if_own(command: Of) -> A | None:
            return run(command) if node_of_mm(command.mm) == self.state.id else None

        return run_if_own

    def _scan(self, command: c.Scan) -> None:
        self._set_ranks(command.ranks)
        self.state.window = command.window
        self._splitter.undone = 0
        self.scanner.scan(command.window)

    def _decide(self, command: c.Decide) -> None:
        if self._huge_window is None:
            merge_window(self.trees, command.window)
            return
        self._huge_window.merge()
        self._huge_window = None
        self._splitter.apply()

    def _find_splits(self, command: c.FindSplits) -> None:
        if command.first:
            self._splitter.start_window()
        if self._huge_window is None:
            self._huge_window = HugeWindow(self.trees, command.window)
        self._huge_window.tell_tries()

    def _plan_window(self, command: c.PlanWindow) -> c.PagesToVisit:
        self._set_ranks(command.ranks)
        return c.PagesToVisit(self.scanner.count(command.low))

    def _set_ranks(self, ranks: I64 | None) -> None:
        if ranks is not None:
            self.state.ranks = ranks

    def _set_knobs(self, command: c.SetKnobs) -> None:
        old, knobs = self.state.knobs, command.knobs
        across = old.merge_across_nodes != knobs.merge_across_nodes
        stay = self.processes.leave_trees() if across else empty()
        self.state.set_knobs(knobs)
        if across:
            self.processes.change_trees(stay)
            self.trees.unstable.change_trees()
            self.state.migrated_stable_nodes.clear()
        if (old.merge_across_nodes, old.use_zero_pages) != (knobs.merge_across_nodes, knobs.use_zero_pages):
            self.processes.look_again()

    def _collapser(self) -> Collapser:
        from cluster.mm.huge.collapse import Collapser

        return Collapser(self.state, self._faults, self._huge, self._huge_allocator)

    def _fail_memory(self, command: c.FailureCommand) -> c.Answer | None:
        from cluster.numa.memory_failure import NodeMemoryFailure

        return NodeMemoryFailure(self.state, self._faults, self._splitter).run(command)

    def _swap_in(self, command: c.SwapIn) -> None:
        mm = self.state.spaces.mms[command.mm]
        self._collapser().swap_in(mm, command.start, command.start + command.nr_pages)

    def _collapse(self, command: c.Collapse) -> c.Collapsed:
        mm, end = self.state.spaces.mms[command.mm], command.start + command.nr_pages
        return c.Collapsed(self._collapser().collapse(mm, command.start, end))

    def _split_parts(self, command: c.SplitParts) -> None:
        mm, end = self.state.spaces.mms[command.mm], command.start + command.nr_pages
        self._splitter.split_parts(mm, self.state.spaces.split(mm, command.start, end), command)

    def _move_pages(self, command: c.Move) -> None:
        self.state.migration_seq = command.seq
        if node_of_mm(command.mm) == self.state.id:
            slots = self.processes.mapped(command.mm, command.start, command.nr_pages)
            self._migration.move_pages(np.union1d(slots, self._splitter.along), command.to)

    def _count_on(self, command: c.CountOn) -> c.PagesOn:
        return c.PagesOn(self.processes.count_on(command) + self._splitter.moved_zeros())

    # Messages.

    def _message_table(self) -> dict[Kind, Callable[..., None]]:
        """Return the handler of each kind of message, which takes the columns of `MESSAGES`."""
        allocator, faults, scanner = self._allocator, self._faults, self.scanner
        merger, trees, migration = self._merger, self.trees, self._migration
        return {
            Kind.ALLOC: allocator.on_alloc,
            Kind.ALLOC_REPLY: allocator.on_alloc_reply,
            Kind.SET_CONTENT: faults.on_set_content,
            Kind.GET: faults.on_get,
            Kind.PUT: faults.on_put,
            Kind.CONTENT_REQUEST: scanner.on_content_request,
            Kind.CONTENT_REPLY: scanner.on_content_reply,
            Kind.EVENT: trees.on_event,
            Kind.WITHDRAW: trees.unstable.on_withdraw,
            Kind.REHOME: trees.unstable.on_rehome,
            Kind.STALE: trees.on_stale,
            Kind.DROPPED: self._on_dropped,
            Kind.DROPPED_AT: scanner.on_dropped_at,
            Kind.WAIT: merger.on_wait,
            Kind.REKEY: merger.on_rekey,
            Kind.STABLE: merger.on_stable,
            Kind.MERGE: merger.on_merge,
            Kind.MAKE_KSM: merger.on_make_ksm,
            Kind.COMPARE_SOURCE: merger.on_compare_source,
            Kind.COMPARE_TARGET: merger.on_compare_target,
            Kind.VERDICT: merger.on_verdict,
            Kind.RECOUNT: trees.on_recount,
            Kind.WAIT_FRAME: trees.unstable.on_wait_frame,
            Kind.WAIT_CONTENT: trees.unstable.on_wait_content,
            Kind.COPY: allocator.on_copy,
            Kind.FILL: allocator.on_fill,
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
            Kind.LINKED: self.state.on_linked,
            Kind.CACHED: faults.on_cached,
            Kind.UNMAPPED: trees.on_unmapped,
            Kind.ORPHANED: self.state.on_orphaned,
            Kind.SPLIT_TRY: self._splitter.on_try,
            Kind.SPLIT_AT: self.state.split_times.update,
            Kind.ZEROED: self._splitter.on_zeroed,
            Kind.SPLIT: self._splitter.on_split,
            Kind.ALLOC_HUGE: self._huge_allocator.on_alloc_huge,
            Kind.ALLOC_HUGE_REPLY: self._huge_allocator.on_alloc_huge_reply,
        }

    def _on_dropped(self, frames: FrameWords) -> None:
        self._merger.on_dropped(frames)
        self.trees.on_dropped(frames)

    def _quietly(self, kind: Kind, handle: Callable[..., None]) -> Callable[..., None]:
        """Return a handler that raises RuntimeError if it sends a message; for tests."""
        out = self.state.out

        def handle_quietly(*columns: object) -> None:
            before = out.pending()
            handle(*columns)
            if out.pending() != before:
                raise RuntimeError(f"{kind.name} is declared quiet, but a message was sent in reply")

        return handle_quietly

    # Compaction and relocation.

    def _add_compaction(self, spec: SimulationSpec) -> None:
        """Add the handlers of a scenario with [migration]."""
        from cluster.numa.compact_frames import NodeCompaction
        from cluster.numa.relocate_frames import NodeRelocation

        assert spec.migration is not None
        self.compaction = compaction = NodeCompaction(self.state, spec.migration, self._migration)
        relocation = NodeRelocation(
            self.state, compaction.frames, self._migration, compaction.memory.filled.owners
        )
        self._commands |= {
            c.BeginCompaction: lambda _: compaction.begin(),
            c.EndCompaction: lambda command: compaction.end(command.seq),
            c.TellMappings: lambda _: relocation.tell_mappings(),
            c.FindPreferredNodes: relocation.find_preferred,
            c.CountFrames: relocation.count,
            c.MoveFrames: relocation.move,
            c.SplitHuge: relocation.split_huge,
            c.CountMoved: lambda _: self._migration.counts(),
            c.CountStayed: relocation.count_stayed,
        }
        self._messages |= {Kind.HELD: compaction.on_held, Kind.MAPPED: relocation.on_mapped}


def _policies(spec: SimulationSpec, node: int) -> Mapping[PolicySpec, CheckedPolicy]:
    """Return the policies of users' packages that the scenario names."""
    if not any(policy.plugin for kind in spec.processes for policy in kind.policies):
        return {}
    from cluster.plugins.placement_policy import make_policies

    return make_policies(spec, node)


def _frames(spec: SimulationSpec) -> Frames:
    """Return the frames of a node; only those of a scenario with [migration] can move within the node."""
    count, with_bytes = spec.machine.frames_per_node, spec.machine.content == "bytes"
    if spec.migration is None:
        return Frames(count, with_bytes=with_bytes)
    from cluster.compaction.movable.movable_frames import MovableFrames
    from cluster.compaction.scenario.fill import empty_memory

    return MovableFrames(empty_memory(count), with_bytes=with_bytes)
