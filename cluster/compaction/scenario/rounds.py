"""The order in which compactors and transfers take their turns, in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cluster.checkpoint.encode import Encoded, encode
from cluster.checkpoint.restore import restore
from cluster.compaction.internode.node_commands import TransferStep
from cluster.compaction.internode.relocator import Relocator, free_dropped
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.random_streams import Purpose, random_stream
from cluster.spec.compaction import CompactionSpec

T = TypeVar("T")


class Rounds:
    """All rounds of a scenario, or of some of its nodes: those of its relocations and of all compactors.

    In each round, each compactor of a node takes a turn, and each transfer that waits for the node takes a
    step. Their order depends on the seed, the node and the round alone, so the result is the same for every
    pool. Between two rounds, no call to the pool is under way.
    """

    def __init__(self, spec: CompactionSpec, nodes: Sequence[int], pool: CompactorPool) -> None:
        self._spec = spec
        self._pool = pool
        self._compactors = {node: list(range(spec.workers)) for node in nodes if spec.workers}
        #: Phases that have not begun; compactors are at work in the phase "during".
        self._phases = ["before", "during", "after"] if spec.relocations else ["during"]
        #: Compactors of this phase that are not done, by node.
        self._left: dict[int, list[int]] = {}
        self._relocator: Relocator | None = None
        #: The number of the next round in this phase.
        self._round = 0
        #: Rounds of all phases so far.
        self.done = 0

    def state(self) -> Encoded:
        """Return the state between two rounds; nodes have theirs."""
        return encode(self, {"spec": self._spec, "pool": self._pool})

    def restore(self, state: Encoded) -> None:
        """Go on from this state, as the nodes of the pool do. Raises DecodeError."""
        restore(self, state, {"spec": self._spec, "pool": self._pool})

    def run_round(self) -> bool:
        """Run the next round; return False if there is none, as all is done."""
        while not (waiting := self._waiting()):
            if not self._phases:
                self._end()
                return False
            self._begin_phase(self._phases.pop(0))
        orders = {node: _order(self._spec.seed, node, self._round, those) for node, those in waiting.items()}
        for place in range(max(map(len, orders.values()))):
            at_work = {node: order[place] for node, order in orders.items() if place < len(order)}
            _take_turns(at_work, self._left, self._pool)
            if self._relocator is not None:
                _take_steps(at_work, self._relocator, self._pool)
        self._left = {node: compactors for node, compactors in self._left.items() if compactors}
        self._round += 1
        self.done += 1
        return True

    def _waiting(self) -> dict[int, list[int | TransferStep]]:
        """Return the compactors and steps of transfers that wait for each node."""
        steps: dict[int, list[TransferStep]] = {}
        if self._relocator is not None:
            self._relocator.begin_round()
            steps = self._relocator.next_steps()
        nodes = sorted({*self._left, *steps})
        return {node: [*self._left.get(node, ()), *steps.get(node, ())] for node in nodes}

    def _begin_phase(self, phase: str) -> None:
        self._round = 0
        self._left = self._compactors if phase == "during" else {}
        if self._spec.relocations:
            self._relocator = Relocator(self._spec, phase, self._pool)

    def _end(self) -> None:
        if self._spec.relocations:
            free_dropped(self._pool)


def drive(spec: CompactionSpec, nodes: Sequence[int], pool: CompactorPool) -> None:
    """Drive all compactors of these nodes until they are done, and the scenario's relocations."""
    rounds = Rounds(spec, nodes, pool)
    while rounds.run_round():
        pass


def _take_turns(
    at_work: dict[int, int | TransferStep], left: dict[int, list[int]], pool: CompactorPool
) -> None:
    turns = [(node, compactor) for node, compactor in at_work.items() if isinstance(compactor, int)]
    for (node, compactor), done in zip(turns, pool.take(turns) if turns else (), strict=True):
        if done:
            left[node].remove(compactor)


def _take_steps(at_work: dict[int, int | TransferStep], relocator: Relocator, pool: CompactorPool) -> None:
    steps = [step for step in at_work.values() if isinstance(step, TransferStep)]
    for step, result in zip(steps, pool.step(steps) if steps else (), strict=True):
        relocator.record(step, result)


def _order(seed: int, node: int, round_number: int, waiting: list[T]) -> list[T]:
    rng = random_stream(seed, Purpose.ORDER, node, round_number)
    return [waiting[i] for i in rng.permutation(len(waiting))]
