"""A node's part in moving pages between nodes: its sides of transfers, and its answers to commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.internode.drain import Drained, NodeDrain
from cluster.compaction.internode.node_commands import (
    AnswerT,
    BeginDrain,
    DropForeign,
    FinishDrain,
    NodeCensus,
    NodeCommand,
    OpenTransfers,
    StepResult,
    TakeCensus,
    TakeDropped,
    TransferStep,
)
from cluster.compaction.internode.transfer import (
    MODE,
    NodeOwners,
    TransferMessage,
    TransferSide,
    TransferSource,
    TransferTarget,
)
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.counting import Counted
from cluster.compaction.movable.page_movable import isolatable


@dataclass(frozen=True, slots=True, eq=False)
class NodeTraffic:
    """What a node sent, by relocation and target, and how it was drained.

    sent, attempts int64[relocations, nodes]: pages that left, and attempts of their drivers to move one.
    """

    sent: I64
    attempts: I64
    drained: tuple[Drained, ...]


class NodeTransfers:
    """A node's sides of all transfers. `shape`: number of relocations, number of nodes."""

    def __init__(
        self,
        node: int,
        shape: tuple[int, int],
        owners: NodeOwners,
        counted: Mapping[str, Counted],
        rules: CompactionRules,
    ) -> None:
        self._sent: I64 = np.zeros(shape, np.int64)
        self._attempts: I64 = np.zeros(shape, np.int64)
        self._node = node
        self._owners = owners
        self._counted = counted
        self._rules = rules
        self._sides: dict[int, TransferSide] = {}
        self._drain = NodeDrain(owners.memory, counted)

    def report(self) -> NodeTraffic:
        """Return what the node has sent so far."""
        return NodeTraffic(self._sent, self._attempts, tuple(self._drain.results))

    def last_message(self, transfer: int) -> TransferMessage | None:
        """Return the last message of this node in a transfer; None before the first one."""
        return self._sides[transfer].last_message

    def step(self, step: TransferStep, message: TransferMessage | None) -> StepResult:
        """Answer a message of the peer. A repeated step changes nothing and gets the first answer."""
        side = self._sides[step.transfer]
        if not isinstance(side, TransferSource):
            sent = side.answer(step.serial, message)
            return StepResult(sent is not None, done=False, moved=0)
        attempts, left = self._attempts_made(), side.by_owner.copy()
        sent = side.answer(step.serial, message)
        left = side.by_owner - left
        place = side.transfer.relocation, side.transfer.target
        self._attempts[place] += self._attempts_made() - attempts
        self._sent[place] += left.sum()
        for counted in self._counted.values():
            counted.counts.moved_away += int(left[counted.owner])
        return StepResult(sent is not None, side.done, side.moved)

    def _attempts_made(self) -> int:
        return sum(counted.attempts for counted in self._counted.values())

    def carry_out(self, command: NodeCommand[AnswerT]) -> AnswerT:
        """Carry out a command to all nodes; return its answer."""
        answer: AnswerT = _HANDLERS[type(command)](self, command)
        return answer

    def _census(self, _command: TakeCensus) -> NodeCensus:
        memory = self._owners.memory
        zone, pages = memory.zones[0], memory.pages
        used = np.count_nonzero(pages.refcount[zone.start : zone.end])
        movable = len(isolatable(pages, zone.start, zone.end, MODE))
        room = 0 if self._drain.active else max(zone.free_pages - zone.watermark_min, 0)
        return NodeCensus(int(used), movable, room)

    def _open(self, command: OpenTransfers) -> None:
        self._sides = {}
        for transfer in command.transfers:
            if transfer.source == self._node:
                self._sides[transfer.number] = TransferSource(self._owners, transfer, self._rules)
            if transfer.target == self._node:
                self._sides[transfer.number] = TransferTarget(self._owners)

    def _begin_drain(self, command: BeginDrain) -> None:
        if self._node in command.nodes:
            self._drain.begin()

    def _finish_drain(self, command: FinishDrain) -> None:
        if self._node in command.nodes:
            self._drain.finish(command.relocation, command.why)

    def _take_dropped(self, _command: TakeDropped) -> I64:
        return self._owners.proxies.take_dropped()

    def _drop_foreign(self, command: DropForeign) -> None:
        locked = self._owners.foreign.drop(command.names)
        self._owners.proxies.add_dropped(locked)


#: What carries out each command: a method of `NodeTransfers`, which returns the command's answer.
_HANDLERS: dict[type[NodeCommand[Any]], Callable[[NodeTransfers, Any], Any]] = {
    TakeCensus: NodeTransfers._census,
    OpenTransfers: NodeTransfers._open,
    BeginDrain: NodeTransfers._begin_drain,
    FinishDrain: NodeTransfers._finish_drain,
    TakeDropped: NodeTransfers._take_dropped,
    DropForeign: NodeTransfers._drop_foreign,
}
