"""The protocol of processes that drive compactors and transfers, and its implementation in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.compaction.internode.node_commands import AnswerT, NodeCommand, StepResult, TransferStep
from cluster.compaction.internode.node_transfers import NodeTransfers
from cluster.compaction.internode.relocator import AllNodes
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.scenario.node_memory import NodeMemory


class CompactorPool(AllNodes, Protocol):
    """Drives the compactors of all nodes, and carries the messages of transfers between nodes."""

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Let compactors take a turn each; return which are done.

        `turns`: pairs (node, compactor) of different nodes.
        """

    def step(self, steps: Sequence[TransferStep]) -> list[StepResult]:
        """Take one step of each of these transfers, on different nodes; return their results."""


class Memories:
    """Memories of some nodes, by node."""

    def __init__(self, memories: Mapping[int, NodeMemory]) -> None:
        self.memories = memories

    def messages(self, steps: Sequence[TransferStep]) -> list[TransferMessage | None]:
        """Return the last messages of its nodes, the peers of these steps."""
        return [self._transfers(step.peer).last_message(step.transfer) for step in steps]

    def step(self, step: TransferStep, message: TransferMessage | None) -> StepResult:
        """Let one of its nodes answer this message; return the result of the step."""
        return self._transfers(step.node).step(step, message)

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        """Let its nodes carry out the command; return their answers."""
        return [self._transfers(node).carry_out(command) for node in self.memories]

    def _transfers(self, node: int) -> NodeTransfers:
        transfers = self.memories[node].transfers
        if transfers is None:
            raise ValueError("the scenario has no relocations")
        return transfers


class InlineCompactorPool:
    """A `CompactorPool` that does everything in this process."""

    def __init__(self, memories: Mapping[int, NodeMemory]) -> None:
        self._memories = memories
        self._host = Memories(memories)

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        return [self._memories[node].take(compactor) for node, compactor in turns]

    def step(self, steps: Sequence[TransferStep]) -> list[StepResult]:
        pairs = zip(steps, self._host.messages(steps), strict=True)
        return [self._host.step(step, message) for step, message in pairs]

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        return self._host.ask(command)
