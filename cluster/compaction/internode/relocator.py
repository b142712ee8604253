"""Who moves pages between nodes when: draining nodes, evening out their memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.internode.flows import transfers
from cluster.compaction.internode.node_transfers import (
    BeginDrain,
    Carried,
    Carry,
    Census,
    Drop,
    FinishDrain,
    Open,
    Order,
    TakeDropped,
)
from cluster.compaction.internode.transfer import Transfer
from cluster.spec.compaction import CompactionSpec, RelocationSpec

IDLE_ROUNDS = 5  #: rounds in a row in which no page moved, before a relocation is given up


class Owners(Protocol):
    """Those who own the nodes' memories."""

    def ask(self, order: Order) -> list[Any]:
        """Every node carries out the order; their answers, by ascending node."""


class Relocator:
    """The relocations of a phase, one after the other; each in rounds of transfers, which go on side by side.

    A round begins with a census of all nodes, and is over when all its transfers are.
    """

    def __init__(self, spec: CompactionSpec, when: str, owners: Owners) -> None:
        self._spec = spec
        self._owners = owners
        self._under_way: dict[int, tuple[Transfer, int]] = {}
        self._moved: dict[int, int] = {}
        numbered = [(i, r) for i, r in enumerate(spec.relocations) if r.when == when]
        self._rounds = self._plan(numbered)

    def due(self) -> dict[int, list[Carry]]:
        """By node, the letters that it is to write next; empty when all is done."""
        if not self._under_way:
            transfers = next(self._rounds, ())
            self._under_way = {transfer.number: (transfer, 0) for transfer in transfers}
        turns: dict[int, list[Carry]] = {}
        for transfer, serial in self._under_way.values():
            ends = (transfer.source, transfer.target)
            node, peer = ends if serial % 2 == 0 else ends[::-1]
            turns.setdefault(node, []).append(Carry(node, peer, transfer.number, serial))
        return turns

    def took(self, turn: Carry, carried: Carried) -> None:
        """A letter was written, or its writer has to wait."""
        transfer, serial = self._under_way[turn.transfer]
        self._moved[turn.transfer] = max(carried.moved, self._moved.get(turn.transfer, 0))
        if carried.done:
            del self._under_way[turn.transfer]
        else:
            self._under_way[turn.transfer] = transfer, serial + carried.written

    def _plan(self, relocations: Sequence[tuple[int, RelocationSpec]]) -> Iterator[tuple[Transfer, ...]]:
        """Round after round."""
        for number, relocation in relocations:
            nodes = relocation.nodes or tuple(range(self._spec.nodes))
            if relocation.kind == "drain":
                self._owners.ask(BeginDrain(nodes))
            yield from self._rounds_of(number, relocation, nodes)
            if relocation.kind == "drain":
                full = not self._census()[:, 2].any()
                self._owners.ask(FinishDrain(nodes, number, full))
        settle(self._owners)

    def _rounds_of(
        self, number: int, relocation: RelocationSpec, nodes: tuple[int, ...]
    ) -> Iterator[tuple[Transfer, ...]]:
        left, idle = relocation.most_pages, 0
        while idle < IDLE_ROUNDS and left != 0:
            settle(self._owners)
            rows = self._flows(relocation.kind, np.array(nodes), left)
            if len(rows) == 0:
                return
            transfers = tuple(
                Transfer(i, number, source, target, pages)
                for i, (source, target, pages) in enumerate(rows.tolist())
            )
            self._owners.ask(Open(transfers))
            self._moved.clear()
            yield transfers
            moved = sum(self._moved.values())
            left = None if left is None else left - moved
            idle = 0 if moved else idle + 1

    def _census(self) -> I64:
        return np.array(self._owners.ask(Census()))

    def _flows(self, kind: str, nodes: I64, most: int | None) -> I64:
        census = self._census()
        chosen = np.isin(np.arange(len(census)), nodes)
        distance = self._spec.distance
        assert distance is not None
        return transfers(kind, census, chosen, distance, most)


def settle(owners: Owners) -> None:
    """Pages that their drivers freed are freed on the nodes where they are. No transfer may be under way."""
    names = np.concatenate(owners.ask(TakeDropped()))
    if len(names):
        owners.ask(Drop(names))
