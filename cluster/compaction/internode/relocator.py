"""Relocations of a scenario: draining nodes and evening out their memory, in rounds of transfers."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(slots=True)
class _Relocation:
    """A relocation under way, the scenario's one of this number."""

    number: int
    spec: RelocationSpec
    nodes: tuple[int, ...]
    left: int | None  #: how many more pages may move; None: any number
    idle: int = 0  #: rounds in a row without a moved page

    @property
    def over(self) -> bool:
        return self.idle >= IDLE_ROUNDS or self.left == 0


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
        self._current: _Relocation | None = None
        self._waiting = [number for number, r in enumerate(spec.relocations) if r.when == when]
        #: Whether all relocations are over.
        self._ended = False

    def begin_round(self) -> None:
        """Open the transfers of the next round, if those of the last one are done."""
        if self._open or self._ended:
            return
        if self._current is not None:
            self._note_moved(self._current)
        while not self._open and not self._ended:
            if self._current is None:
                self._begin_next()
            elif not self._open_transfers(self._current):
                self._finish(self._current)

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

    def _begin_next(self) -> None:
        """Begin the next relocation; after the last one, free what drivers have freed meanwhile."""
        if not self._waiting:
            free_dropped(self._nodes)
            self._ended = True
            return
        number = self._waiting.pop(0)
        spec = self._spec.relocations[number]
        nodes = spec.nodes or tuple(range(self._spec.nodes))
        if spec.kind == "drain":
            self._nodes.ask(BeginDrain(nodes))
        self._current = _Relocation(number, spec, nodes, spec.most_pages)

    def _open_transfers(self, relocation: _Relocation) -> bool:
        """Open the transfers of its next round; return False if it is over."""
        if relocation.over:
            return False
        free_dropped(self._nodes)
        rows = self._flows(relocation)
        if len(rows) == 0:
            return False
        transfers = tuple(
            Transfer(i, relocation.number, source, target, count)
            for i, (source, target, count) in enumerate(rows.tolist())
        )
        self._nodes.ask(OpenTransfers(transfers))
        self._moved.clear()
        self._open = {transfer.number: (transfer, 0) for transfer in transfers}
        return True

    def _note_moved(self, relocation: _Relocation) -> None:
        """Note what the transfers of the last round, which are done, have moved."""
        moved = sum(self._moved.values())
        relocation.left = None if relocation.left is None else relocation.left - moved
        relocation.idle = 0 if moved else relocation.idle + 1

    def _finish(self, relocation: _Relocation) -> None:
        if relocation.spec.kind == "drain":
            full = not self._census()[:, 2].any()
            why = LIMIT if relocation.left == 0 else NO_ROOM if full else FAILED
            self._nodes.ask(FinishDrain(relocation.nodes, relocation.number, why))
        self._current = None

    def _census(self) -> I64:
        """Ask for the census of all nodes. int64[nodes, 3], columns as in `NodeCensus`."""
        return np.array(self._nodes.ask(TakeCensus()))

    def _flows(self, relocation: _Relocation) -> I64:
        census = self._census()
        chosen = np.isin(np.arange(len(census)), np.array(relocation.nodes))
        distance = self._spec.distance
        assert distance is not None
        return transfers(relocation.spec.kind, census, chosen, distance, relocation.left)


def free_dropped(nodes: AllNodes) -> None:
    """Free pages, on whatever node they are, that their drivers have freed. No transfer may be open."""
    names = np.concatenate(nodes.ask(TakeDropped()))
    if len(names):
        nodes.ask(DropForeign(names))
