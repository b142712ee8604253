"""Actors of a compaction: owners of nodes' memories, and a pool of those that drive the compactors.

A migration actor has no pages and no state: it tells the owners of nodes to let a compactor take its next
steps (isolate, migrate, put back), and carries letters between the two owners of a transfer. What a compactor
or a transfer has isolated or locked stays with the node's owner, and the owner carries out each call once. So
nothing is lost with a migration actor: another one repeats the call, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray

from actors.answers import answers
from actors.lean import end_at_once
from actors.numbered_calls import NumberedCalls
from cluster.compaction.internode.node_transfers import Carried, Carry, Order
from cluster.compaction.internode.transfer import TransferMessage
from cluster.compaction.scenario.node_memory import MemoryHost, NodeReport
from cluster.spec.compaction import CompactionSpec


@ray.remote(num_cpus=0)
class MemoryActor:
    """A thin shell around `cluster.compaction.scenario.node_memory.MemoryHost`: one node, or several."""

    def __init__(self, nodes: list[int], spec: CompactionSpec) -> None:
        end_at_once()
        self._host = MemoryHost(nodes, spec)
        self._calls = NumberedCalls()

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Turns of (node, compactor) pairs of different nodes; which are done. A repeat changes nothing."""
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def letters(self, turns: Sequence[Carry]) -> list[TransferMessage | None]:
        """What its nodes, the peers of these turns, wrote last."""
        return self._host.letters(turns)

    def carry(
        self, seq: int, turns: Sequence[Carry], letters: Sequence[TransferMessage | None]
    ) -> list[Carried]:
        """Different nodes answer a letter each. A repeat changes nothing."""
        return [
            self._calls.once(turn.node, seq, partial(self._host.carry, turn, letter))
            for turn, letter in zip(turns, letters, strict=True)
        ]

    def ask(self, order: Order) -> list[Any]:
        """Its nodes carry out an order; their answers."""
        return self._host.ask(order)

    def reports(self) -> list[NodeReport]:
        """What became of its nodes."""
        return self._host.reports()


@ray.remote(num_cpus=0)
class MigrationActor:
    """Drives compactors on nodes that others own, and carries letters between these."""

    def __init__(self, owners: list[Any]) -> None:
        end_at_once()
        self._owners = owners

    def take(self, seq: int, turns: Sequence[tuple[int, list[tuple[int, int]]]]) -> list[list[bool]]:
        """Turns by number of the owner's; which are done. Owners work at the same time."""
        asked = [self._owners[owner].take_turns.remote(seq, of_owner) for owner, of_owner in turns]
        done: list[list[bool]] = answers(asked)
        return done

    def carry(self, seq: int, turns: Sequence[tuple[int, int, list[Carry]]]) -> list[list[Carried]]:
        """Turns by the owners' numbers of those who write and of those who wrote before."""
        # references: letters go from owner to owner
        letters = [self._owners[peer].letters.remote(between) for _owner, peer, between in turns]
        pairs = zip(turns, letters, strict=True)
        asked = [
            self._owners[owner].carry.remote(seq, between, of_peer) for (owner, _, between), of_peer in pairs
        ]
        carried: list[list[Carried]] = answers(asked)
        return carried
