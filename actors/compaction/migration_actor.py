"""The actor that drives compactors on nodes of other actors, and carries messages between two such nodes.

It has no pages and no state: it calls the owners of nodes, which let a compactor take its next steps
(isolate, migrate, put back). An owner carries out each call once. If a migration actor dies, another one
repeats the call, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from actors.answers import answers
from actors.tuning.slim_actor import end_at_once
from cluster.compaction.internode.node_commands import StepResult, TransferStep


@ray.remote(num_cpus=0)
class MigrationActor:
    """Drives compactors and transfers through the handles of the nodes' owners."""

    def __init__(self, owners: list[Any]) -> None:
        end_at_once()
        self._owners = owners

    def take(self, seq: int, turns: Sequence[tuple[int, list[tuple[int, int]]]]) -> list[list[bool]]:
        """Let each owner, given by its index, take turns; return which compactors are done, by owner.

        The owners work at the same time.
        """
        calls = [self._owners[owner].take_turns.remote(seq, of_owner) for owner, of_owner in turns]
        done: list[list[bool]] = answers(calls)
        return done

    def step(self, seq: int, steps: Sequence[tuple[int, int, list[TransferStep]]]) -> list[list[StepResult]]:
        """Let nodes answer the messages of their peers; return the results.

        `steps` come with the indices of the nodes' owner and of the peers' owner.
        """
        # As references: messages go from owner to owner.
        messages = [self._owners[peer].messages.remote(between) for _owner, peer, between in steps]
        pairs = zip(steps, messages, strict=True)
        calls = [
            self._owners[owner].step.remote(seq, between, of_peer) for (owner, _, between), of_peer in pairs
        ]
        results: list[list[StepResult]] = answers(calls)
        return results
