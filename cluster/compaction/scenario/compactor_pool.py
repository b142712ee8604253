"""The protocol of processes that drive compactors and transfers, and its implementation in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.compaction.internode.node_commands import AnswerT, NodeCommand, StepResult, TransferStep
from cluster.compaction.internode.node_transfers import NodeTransfers
from cluster.compaction.internode.relocator import AllNodes
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.scenario.node_memory import NodeMemory, Turn


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

    def take(self, turns: Sequence[Turn]) -> list[bool]:
        """Let compactors take these turns; return which are done."""
        return [self.memories[turn.node].take(turn) for turn in turns]

    def abandon(self, turns: Sequence[Turn]) -> None:
        """Give up the runs of these compactors, which are of these generations from now on."""
        for turn in turns:
            self.memories[turn.node].abandon(turn.compactor, turn.generation)

    def messages(self, steps: Sequence[TransferStep]) -> list[TransferMessage | None]:
        """Return the last messages of its nodes, the peers of these steps."""
        return [self._transfers(step.peer).last_message(step.transfer) for step in steps]

    def step(
        self, steps: Sequence[TransferStep], messages: Sequence[TransferMessage | None]
    ) -> list[StepResult]:
        """Let its nodes answer these messages; return the results of the steps."""
        for step in steps:
            self.memories[step.node].put_back()
        pairs = zip(steps, messages, strict=True)
        return [self._transfers(step.node).step(step, message) for step, message in pairs]

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
        self._host = Memories(memories)

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        return self._host.take([Turn(node, compactor) for node, compactor in turns])

    def step(self, steps: Sequence[TransferStep]) -> list[StepResult]:
        return self._host.step(steps, self._host.messages(steps))

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        return self._host.ask(command)
