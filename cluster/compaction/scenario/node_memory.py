"""A compaction scenario: the memory of each node, its compactors, and what they achieve.

`NodeMemory` owns everything that there is on a node, compactors' state included. Whoever drives a compactor
only says when it takes its next steps, so nothing is lost with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.internode.node_transfers import Carried, Carry, NodeRelocations, NodeTransfers, Order
from cluster.compaction.internode.relocator import Owners, Relocator, settle
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.movable.counting import Counted, MoveCounts
from cluster.compaction.pages.memory import VmStat
from cluster.compaction.scenario.fill import Filled, filled
from cluster.compaction.scenario.triggers import Requests, Worker, make_worker
from cluster.compaction.zone.compact_control import RULES
from cluster.heap import keep_free_memory
from cluster.spec.compaction import CompactionSpec

#: Single steps at the end of a turn, at most.
_MOST_STEPS = 3


@dataclass(frozen=True, slots=True, eq=False)
class NodeReport:
    """What became of a node.

    before, after, without: free blocks by order (int64[11]) before the compaction, after it, and after one
    in which no driver's page can move. obtained_*: blocks that the scenario's requests got then. by_driver
    in the order of the scenario, then LRU pages and guests. vmstat as in `memory.VmStat`. seconds: simulated,
    of its compactors. relocations: None if the scenario has none.
    """

    node: int
    before: I64
    after: I64
    without: I64
    obtained_before: int
    obtained_after: int
    obtained_without: int
    by_driver: dict[str, MoveCounts]
    vmstat: dict[str, int]
    seconds: float
    relocations: NodeRelocations | None = None


@dataclass(slots=True)
class _Session:
    """A compactor's run, and what it cost so far: calls for pages, pages moved."""

    run: Worker
    attempts: int = 0
    moved: int = 0


class NodeMemory:
    """A node's memory, with its drivers and its compactors."""

    def __init__(self, spec: CompactionSpec, node: int, filled: Filled) -> None:
        self.spec = spec
        self.node = node
        self.filled = filled
        self.memory = filled.memory
        self._counted = {name: Counted(self.memory, owner) for name, owner in filled.owners.items()}
        self.transfers = self._transfers()
        self.begin()

    def begin(self) -> None:
        """Another compaction, of the memory as it is now."""
        self.before = self.memory.zones[0].buddyinfo()
        self.memory.vmstat = VmStat()
        self.requests = Requests(self.spec.attempts)
        self._chance = np.random.default_rng((self.spec.seed, self.node))
        for counted in self._counted.values():
            counted.begin()
        #: Of the compactors that have had a turn.
        self._sessions: dict[int, _Session] = {}

    def _transfers(self) -> NodeTransfers | None:
        """Its side of transfers, if there are any in the scenario."""
        spec, lodging = self.spec, self.filled.lodging
        if lodging is None:
            return None
        shape, rules = (len(spec.relocations), spec.nodes), RULES[spec.kernel].migrate
        return NodeTransfers(self.node, shape, lodging, self._counted, rules)

    @property
    def counts(self) -> dict[str, MoveCounts]:
        """By name of the driver, then LRU pages and guests."""
        return {name: counted.counts for name, counted in self._counted.items()}

    def take(self, compactor: int) -> bool:
        """Let a compactor take its next steps; return whether it is done."""
        if compactor not in self._sessions:
            self._sessions[compactor] = _Session(make_worker(self.memory, self.requests, self.spec))
        session = self._sessions[compactor]
        attempts, moved = self._work_done()
        self._steps(session.run)
        attempts_now, moved_now = self._work_done()
        session.attempts += attempts_now - attempts
        session.moved += moved_now - moved
        return session.run.done

    def _steps(self, run: Worker) -> None:
        """Part of the memory in one go, then single steps: others find it in the middle of something."""
        if self._chance.integers(2):
            run.advance(self.spec.turn_pages)
        for _ in range(int(self._chance.integers(1, _MOST_STEPS + 1))):
            if run.done:
                break
            run.step()
            if run.waiting:
                break

    def _work_done(self) -> tuple[int, int]:
        counted = self._counted.values()
        return sum(c.attempts for c in counted), sum(c.counts.moved for c in counted)

    def run(self) -> None:
        """All compactors in turns, here and now."""
        compactor_pool = InlineCompactorPool({self.node: self})
        _rounds(self.spec, _compactors(self.spec, [self.node]), compactor_pool)

    def obtain(self) -> int:
        """How many of the scenario's blocks compactors have got; or can be had now, and are given back."""
        if self.spec.trigger == "direct":
            return self.requests.obtained
        got = [self.memory.alloc(self.spec.order) for _ in range(self.spec.attempts)]
        blocks = [pfn for pfn in got if pfn is not None]
        for pfn in blocks:
            self.memory.free(np.arange(pfn, pfn + (1 << self.spec.order)))
        return len(blocks)

    def seconds(self) -> float:
        """Simulated time until the last compactor was done; they work side by side."""
        return max(map(self._ns, self._sessions.values()), default=0) / 1e9

    def _ns(self, session: _Session) -> float:
        cost = self.spec.cost
        return session.run.scanned * cost.scan + session.attempts * cost.attempt + session.moved * cost.copy

    def twin(self) -> NodeMemory:
        """A copy of this memory as it is now, in which no driver's page can move."""
        return NodeMemory(self.spec, self.node, self.filled.without_drivers())

    def report(self, twin: NodeMemory) -> NodeReport:
        """What came of it, beside a twin from before the compaction, which is compacted now."""
        zone, order = self.memory.zones[0], self.spec.order
        twin.run()
        return NodeReport(
            node=self.node,
            before=self.before,
            after=zone.buddyinfo(),
            without=twin.memory.zones[0].buddyinfo(),
            obtained_before=min(blocks_of(self.before, order), self.spec.attempts),
            obtained_after=self.obtain(),
            obtained_without=twin.obtain(),
            by_driver=self.counts,
            vmstat=self.memory.vmstat.as_dict(),
            seconds=self.seconds(),
            relocations=self.transfers.report() if self.transfers else None,
        )


def blocks_of(buddyinfo: I64, order: int) -> int:
    """How many blocks of `order` free memory holds, those inside larger ones counted."""
    return int((buddyinfo[order:] << np.arange(len(buddyinfo) - order)).sum())


def unusable_index(buddyinfo: I64, order: int) -> int:
    """Thousandths of the free memory that a request of `order` cannot use (unusable_show_print())."""
    free = blocks_of(buddyinfo, 0)
    suitable = blocks_of(buddyinfo, order) << order
    return (free - suitable) * 1000 // free if free else 1000


class CompactorPool(Owners, Protocol):
    """Those who drive the compactors and carry the letters of transfers."""

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """One turn each for (node, compactor) pairs of different nodes; which are done with their runs."""

    def carry(self, turns: Sequence[Carry]) -> list[Carried]:
        """One letter each for transfers, written by different nodes."""


class Memories:
    """Memories of some nodes."""

    def __init__(self, memories: Mapping[int, NodeMemory]) -> None:
        self.memories = memories

    def letters(self, turns: Sequence[Carry]) -> list[TransferMessage | None]:
        """The letters that wait for an answer at its nodes, the peers of these turns."""
        return [self._transfers(turn.peer).letter(turn.transfer) for turn in turns]

    def carry(self, turn: Carry, letter: TransferMessage | None) -> Carried:
        """One of its nodes answers this letter."""
        return self._transfers(turn.node).carry(turn, letter)

    def ask(self, order: Order) -> list[Any]:
        return [self._transfers(node).ask(order) for node in self.memories]

    def _transfers(self, node: int) -> NodeTransfers:
        transfers = self.memories[node].transfers
        if transfers is None:
            raise ValueError("the scenario moves nothing between nodes")
        return transfers


class MemoryHost(Memories):
    """Memories of some nodes of a compaction scenario."""

    def __init__(self, nodes: Sequence[int], spec: CompactionSpec) -> None:
        keep_free_memory()
        super().__init__({node: NodeMemory(spec, node, filled(spec, node)) for node in nodes})
        self._twins = {node: memory.twin() for node, memory in self.memories.items()}

    def reports(self) -> list[NodeReport]:
        """What became of them; to be asked once, at the end."""
        return [memory.report(self._twins[node]) for node, memory in self.memories.items()]


class InlineCompactorPool:
    """Everything in this process."""

    def __init__(self, memories: Mapping[int, NodeMemory]) -> None:
        self._memories = memories
        self._host = Memories(memories)

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        return [self._memories[node].take(compactor) for node, compactor in turns]

    def carry(self, turns: Sequence[Carry]) -> list[Carried]:
        pairs = zip(turns, self._host.letters(turns), strict=True)
        return [self._host.carry(turn, letter) for turn, letter in pairs]

    def ask(self, order: Order) -> list[Any]:
        return self._host.ask(order)


def drive(spec: CompactionSpec, nodes: Sequence[int], compactor_pool: CompactorPool) -> None:
    """All compactors of these nodes until they are done, and what the scenario moves between nodes.

    Compactors of a node take turns, and so do the transfers that are to write a letter there, in another
    order each round: it depends on the seed, the node and the round, and on nothing else, so that the result
    is the same whoever drives them.
    """
    at_work = _compactors(spec, nodes)
    if not spec.relocations:
        _rounds(spec, at_work, compactor_pool)
        return
    _rounds(spec, {}, compactor_pool, Relocator(spec, "before", compactor_pool))
    _rounds(spec, at_work, compactor_pool, Relocator(spec, "during", compactor_pool))
    _rounds(spec, {}, compactor_pool, Relocator(spec, "after", compactor_pool))
    settle(compactor_pool)


def _compactors(spec: CompactionSpec, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Those of each node, if there are any."""
    return {node: list(range(spec.workers)) for node in nodes if spec.workers}


def _rounds(
    spec: CompactionSpec,
    left: dict[int, list[int]],
    compactor_pool: CompactorPool,
    relocator: Relocator | None = None,
) -> None:
    """Round after round, until these compactors are done, and nothing is left to move."""
    round_number = 0
    while True:
        due = relocator.due() if relocator else {}
        waiting = {node: [*left.get(node, ()), *due.get(node, ())] for node in sorted({*left, *due})}
        if not waiting:
            return
        orders = {node: _order(spec.seed, node, round_number, those) for node, those in waiting.items()}
        for place in range(max(map(len, orders.values()))):
            at_work = {node: order[place] for node, order in orders.items() if place < len(order)}
            _take(at_work, left, compactor_pool)
            if relocator is not None:
                _carry(at_work, relocator, compactor_pool)
        left = {node: compactors for node, compactors in left.items() if compactors}
        round_number += 1


def _take(at_work: dict[int, int | Carry], left: dict[int, list[int]], compactor_pool: CompactorPool) -> None:
    turns = [(node, worker) for node, worker in at_work.items() if isinstance(worker, int)]
    for (node, compactor), done in zip(turns, compactor_pool.take(turns) if turns else (), strict=True):
        if done:
            left[node].remove(compactor)


def _carry(at_work: dict[int, int | Carry], relocator: Relocator, compactor_pool: CompactorPool) -> None:
    turns = [worker for worker in at_work.values() if isinstance(worker, Carry)]
    for turn, carried in zip(turns, compactor_pool.carry(turns) if turns else (), strict=True):
        relocator.took(turn, carried)


T = TypeVar("T")


def _order(seed: int, node: int, round_number: int, waiting: list[T]) -> list[T]:
    rng = np.random.default_rng((seed, node, round_number))
    return [waiting[i] for i in rng.permutation(len(waiting))]


def compact_inline(spec: CompactionSpec) -> list[NodeReport]:
    """A whole scenario in this process."""
    host = MemoryHost(range(spec.nodes), spec)
    drive(spec, range(spec.nodes), InlineCompactorPool(host.memories))
    return host.reports()
