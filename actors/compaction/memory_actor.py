"""The actor that owns the memories of nodes in a scenario of `ksmcluster compact`.

What a compactor or a transfer has isolated or locked stays here, not with the migration actor that drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ray

from actors.checkpoint.node_states import SavedNodes
from actors.compaction.numbered_calls import NumberedCalls
from actors.tuning.heap import keep_free_memory
from actors.tuning.slim_actor import end_at_once
from cluster.compaction.internode.node_commands import AnswerT, NodeCommand, StepResult, TransferStep
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.scenario.memory_host import MemoryHost
from cluster.compaction.scenario.node_report import NodeReport
from cluster.spec.compaction import CompactionSpec


@ray.remote(num_cpus=0)
class MemoryActor(SavedNodes[MemoryHost]):
    """Wraps a `cluster.compaction.scenario.memory_host.MemoryHost` of one node or several."""

    def __init__(self) -> None:
        end_at_once()
        keep_free_memory()
        self._calls = NumberedCalls()

    def fill(self, nodes: list[int], spec: CompactionSpec) -> None:
        """Fill the memories of its nodes. What goes wrong in a constructor would be a death of the actor."""
        self._host = MemoryHost(nodes, spec)

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Let a compactor of each (node, compactor) pair take a turn; return which are done.

        The nodes differ. A repeated call changes nothing.
        """
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def messages(self, steps: Sequence[TransferStep]) -> list[TransferMessage | None]:
        """Return the last messages of its nodes, the peers of these steps."""
        return self._host.messages(steps)

    def step(
        self, seq: int, steps: Sequence[TransferStep], messages: Sequence[TransferMessage | None]
    ) -> list[StepResult]:
        """Let different nodes answer a message each. A repeated call changes nothing."""
        return [
            self._calls.once(step.node, seq, partial(self._host.step, step, message))
            for step, message in zip(steps, messages, strict=True)
        ]

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        """Let its nodes carry out a command; return their answers."""
        return self._host.ask(command)

    def finish(self) -> list[NodeReport]:
        """End the compaction; return the report of each node."""
        self._host.finish()
        return self._host.reports()
