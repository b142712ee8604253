"""Actors of a compaction: owners of nodes' memories, and a pool of those that drive the compactors.

A migration actor has no pages and no state: it tells the owners of nodes to let a compactor take its next
steps (isolate, migrate, put back), and carries messages between the two owners of a transfer. What a
compactor or a transfer has isolated or locked stays with the node's owner, and the owner carries out each
call once. So nothing is lost with a migration actor: another one repeats the call, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray

from actors.answers import answers
from actors.lean import end_at_once
from actors.numbered_calls import NumberedCalls
from cluster.compaction.internode.node_commands import AnswerT, NodeCommand, StepResult, TransferStep
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.scenario.memory_host import MemoryHost
from cluster.compaction.scenario.node_report import NodeReport
from cluster.heap import keep_free_memory
from cluster.spec.compaction import CompactionSpec


@ray.remote(num_cpus=0)
class MemoryActor:
    """A thin shell around `cluster.compaction.scenario.memory_host.MemoryHost`: one node, or several."""

    def __init__(self, nodes: list[int], spec: CompactionSpec) -> None:
        end_at_once()
        keep_free_memory()
        self._host = MemoryHost(nodes, spec)
        self._calls = NumberedCalls()

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Turns of (node, compactor) pairs of different nodes; which are done. A repeat changes nothing."""
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def messages(self, steps: Sequence[TransferStep]) -> list[TransferMessage | None]:
        """Return the last messages of its nodes, the peers of these steps."""
        return self._host.messages(steps)

    def step(
        self, seq: int, steps: Sequence[TransferStep], messages: Sequence[TransferMessage | None]
    ) -> list[StepResult]:
        """Let different nodes answer a message each. A repeat changes nothing."""
        return [
            self._calls.once(step.node, seq, partial(self._host.step, step, message))
            for step, message in zip(steps, messages, strict=True)
        ]

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        """Let its nodes carry out a command; return their answers."""
        return self._host.ask(command)

    def finish(self) -> list[NodeReport]:
        """End the compaction; return what became of its nodes."""
        self._host.finish()
        return self._host.reports()


@ray.remote(num_cpus=0)
class MigrationActor:
    """Drives compactors on nodes that others own, and carries messages between these."""

    def __init__(self, owners: list[Any]) -> None:
        end_at_once()
        self._owners = owners

    def take(self, seq: int, turns: Sequence[tuple[int, list[tuple[int, int]]]]) -> list[list[bool]]:
        """Turns by number of the owner's; which are done. Owners work at the same time."""
        asked = [self._owners[owner].take_turns.remote(seq, of_owner) for owner, of_owner in turns]
        done: list[list[bool]] = answers(asked)
        return done

    def step(self, seq: int, steps: Sequence[tuple[int, int, list[TransferStep]]]) -> list[list[StepResult]]:
        """Take steps, given by the owners' numbers of the nodes and of their peers; return their results."""
        # references: messages go from owner to owner
        messages = [self._owners[peer].messages.remote(between) for _owner, peer, between in steps]
        pairs = zip(steps, messages, strict=True)
        asked = [
            self._owners[owner].step.remote(seq, between, of_peer) for (owner, _, between), of_peer in pairs
        ]
        results: list[list[StepResult]] = answers(asked)
        return results
