"""Relocations of a scenario: draining nodes and evening out their memory, in rounds of transfers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.internode.drain import FAILED, LIMIT, NO_ROOM
from cluster.compaction.internode.flows import transfers
from cluster.compaction.internode.node_commands import (
    AnswerT,
    BeginDrain,
    DropForeign,
    FinishDrain,
    NodeCommand,
    OpenTransfers,
    StepResult,
    TakeCensus,
    TakeDropped,
    TransferStep,
)
from cluster.compaction.internode.transfer import Transfer
from cluster.spec.compaction import CompactionSpec, RelocationSpec

IDLE_ROUNDS = 5  #: rounds in a row without a moved page after which a relocation is given up


class AllNodes(Protocol):
    """The memories of all nodes of a scenario, as their coordinator reaches them."""

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        """Carry out the command on every node; return their answers, by ascending node."""


class Relocator:
    """The relocations of one phase, one after the other; the transfers of a round go on at the same time.

    A round begins with a census of all nodes, and ends when all its transfers are done.
    """

    def __init__(self, spec: CompactionSpec, when: str, nodes: AllNodes) -> None:
        self._spec = spec
        self._nodes = nodes
        #: By number: each transfer that is not done, and the serial of its next message.
        self._open: dict[int, tuple[Transfer, int]] = {}
        self._moved: dict[int, int] = {}
        numbered = [(i, r) for i, r in enumerate(spec.relocations) if r.when == when]
        self._rounds = self._plan(numbered)

    def begin_round(self) -> None:
        """Open the transfers of the next round, if those of the last one are done."""
        if not self._open:
            self._open = {transfer.number: (transfer, 0) for transfer in next(self._rounds, ())}

    def next_steps(self) -> dict[int, list[TransferStep]]:
        """Return by node the steps of transfers that it takes next; empty if none is left to take."""
        steps: dict[int, list[TransferStep]] = {}
        for transfer, serial in self._open.values():
            ends = (transfer.source, transfer.target)
            node, peer = ends if serial % 2 == 0 else ends[::-1]
            steps.setdefault(node, []).append(TransferStep(node, peer, transfer.number, serial))
        return steps

    def record(self, step: TransferStep, result: StepResult) -> None:
        """Take in the result of a step, which says whether the transfer goes on with the next one."""
        transfer, serial = self._open[step.transfer]
        self._moved[step.transfer] = max(result.moved, self._moved.get(step.transfer, 0))
        if result.done:
            del self._open[step.transfer]
        else:
            self._open[step.transfer] = transfer, serial + result.sent

    def _plan(self, relocations: Sequence[tuple[int, RelocationSpec]]) -> Iterator[tuple[Transfer, ...]]:
        """Yield the transfers of round after round, each once the round before it is over."""
        for number, relocation in relocations:
            nodes = relocation.nodes or tuple(range(self._spec.nodes))
            if relocation.kind == "drain":
                self._nodes.ask(BeginDrain(nodes))
            left = yield from self._rounds_of(number, relocation, nodes)
            if relocation.kind == "drain":
                full = not self._census()[:, 2].any()
                why = LIMIT if left == 0 else NO_ROOM if full else FAILED
                self._nodes.ask(FinishDrain(nodes, number, why))
        free_dropped(self._nodes)

    def _rounds_of(
        self, number: int, relocation: RelocationSpec, nodes: tuple[int, ...]
    ) -> Generator[tuple[Transfer, ...], None, int | None]:
        """Yield the transfers of each round; return how many more pages may move, None for any number."""
        left, idle = relocation.most_pages, 0
        while idle < IDLE_ROUNDS and left != 0:
            free_dropped(self._nodes)
            rows = self._flows(relocation.kind, np.array(nodes), left)
            if len(rows) == 0:
                break
            transfers = tuple(
                Transfer(i, number, source, target, count)
                for i, (source, target, count) in enumerate(rows.tolist())
            )
            self._nodes.ask(OpenTransfers(transfers))
            self._moved.clear()
            yield transfers
            moved = sum(self._moved.values())
            left = None if left is None else left - moved
            idle = 0 if moved else idle + 1
        return left

    def _census(self) -> I64:
        """Ask for the census of all nodes. int64[nodes, 3], columns as in `NodeCensus`."""
        return np.array(self._nodes.ask(TakeCensus()))

    def _flows(self, kind: str, nodes: I64, most: int | None) -> I64:
        census = self._census()
        chosen = np.isin(np.arange(len(census)), nodes)
        distance = self._spec.distance
        assert distance is not None
        return transfers(kind, census, chosen, distance, most)


def free_dropped(nodes: AllNodes) -> None:
    """Free pages, on whatever node they are, that their drivers have freed. No transfer may be open."""
    names = np.concatenate(nodes.ask(TakeDropped()))
    if len(names):
        nodes.ask(DropForeign(names))
