"""A node's part in moving pages between nodes: its sides of transfers, and its memory going offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.arrays.words import I64, U8
from cluster.compaction.internode.transfer import (
    MODE,
    Arrival,
    Departure,
    Endpoint,
    NodeOwners,
    Transfer,
    TransferMessage,
)
from cluster.compaction.movable.counting import GUESTS, Counted
from cluster.compaction.movable.lru_pages import LRU
from cluster.compaction.movable.migrate_pages import MigrateRules
from cluster.compaction.movable.page_movable import isolatable
from cluster.compaction.pages.page_map import (
    OWNER_SHIFT,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    USED,
    MigrateType,
    PageKind,
)
from cluster.compaction.zone.offline_pages import take_offline

#: How pages are called that look as if nobody could move them: the kernel's, and those of such drivers.
UNMOVABLE = "unmovable"
#: Why pages stay on a node that is drained.
CANNOT_MOVE, NO_ROOM, FAILED = "cannot move", "no room elsewhere", "refused or failed"


@dataclass(frozen=True, slots=True)
class Census:
    """How many pages does each node have? Answer: int64[3], see `NodeTransfers.census`."""


@dataclass(frozen=True, slots=True)
class Open:
    """These transfers begin, those before are over."""

    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class BeginDrain:
    """Nothing more is allocated on these nodes."""

    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FinishDrain:
    """What is free on these nodes goes offline. `full`: there was no room on the others for the rest."""

    nodes: tuple[int, ...]
    relocation: int
    full: bool


@dataclass(frozen=True, slots=True)
class TakeDropped:
    """Which pages that may be on other nodes were freed? Answer: their names, int64[n]; asked once."""


@dataclass(frozen=True, slots=True, eq=False)
class Drop:
    """ForeignPages with these names are to be freed."""

    names: I64


Order = Census | Open | BeginDrain | FinishDrain | TakeDropped | Drop


@dataclass(frozen=True, slots=True)
class Carry:
    """`node` answers the letter that `peer` wrote last in a transfer; its answer has the number `serial`."""

    node: int
    peer: int
    transfer: int
    serial: int


@dataclass(frozen=True, slots=True)
class Carried:
    """How a transfer stands. moved: pages so far, as this node knows; written: or it has to wait."""

    written: bool
    done: bool
    moved: int


@dataclass(frozen=True, slots=True)
class Stayed:
    """Pages that a drained node could not get rid of: whose, how many, why."""

    owner: str
    pages: int
    why: str


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of draining a node, pageblock by pageblock.

    fixed: pages that had stayed if no driver's pages could move: those of drivers, and the kernel's.
    """

    relocation: int
    offline: int
    pageblocks: int
    fixed: int
    stayed: tuple[Stayed, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NodeRelocations:
    """What a node sent, int64[relocations, nodes]: pages by target, and attempts; and how it was drained."""

    sent: I64
    attempts: I64
    drained: tuple[Drained, ...]


class NodeTransfers:
    """A node's side of all transfers. sent, attempts int64[relocations, nodes]: pages, by their targets."""

    def __init__(
        self,
        node: int,
        shape: tuple[int, int],
        lodging: NodeOwners,
        counted: Mapping[str, Counted],
        rules: MigrateRules,
    ) -> None:
        self.sent: I64 = np.zeros(shape, np.int64)
        self.attempts: I64 = np.zeros(shape, np.int64)
        self.drained: list[Drained] = []
        self._node = node
        self._lodging = lodging
        self._memory = lodging.memory
        self._counted = counted
        self._rules = rules
        self._endpoints: dict[int, Endpoint] = {}
        self._types: U8 | None = None
        self._fixed = 0

    def report(self) -> NodeRelocations:
        return NodeRelocations(self.sent, self.attempts, tuple(self.drained))

    # transfers

    def letter(self, transfer: int) -> TransferMessage | None:
        """What this node wrote last."""
        return self._endpoints[transfer].last

    def carry(self, turn: Carry, letter: TransferMessage | None) -> Carried:
        """The node answers a letter, or has done so before."""
        endpoint = self._endpoints[turn.transfer]
        if not isinstance(endpoint, Departure):
            written = endpoint.answer(turn.serial, letter)
            return Carried(written is not None, done=False, moved=0)
        attempts, away = self._attempts(), endpoint.by_owner.copy()
        written = endpoint.answer(turn.serial, letter)
        away = endpoint.by_owner - away
        place = endpoint.transfer.relocation, endpoint.transfer.target
        self.attempts[place] += self._attempts() - attempts
        self.sent[place] += away.sum()
        for counted in self._counted.values():
            counted.counts.moved_away += int(away[counted.owner])
        return Carried(written is not None, endpoint.done, endpoint.moved)

    def _attempts(self) -> int:
        return sum(counted.attempts for counted in self._counted.values())

    # what the coordinator asks of all nodes

    def ask(self, order: Order) -> Any:
        """Carry out an order; the answer, if it has one."""
        match order:
            case Census():
                return self.census()
            case Open(transfers):
                self._open(transfers)
            case BeginDrain(nodes):
                if self._node in nodes:
                    self._begin_drain()
            case FinishDrain(nodes, relocation, full):
                if self._node in nodes:
                    self._finish_drain(relocation, NO_ROOM if full else FAILED)
            case TakeDropped():
                return self._take_dropped()
            case Drop(names):
                self._drop(names)
        return None

    def census(self) -> I64:
        """Pages in use, of them those that look movable, and those that others may send. int64[3]."""
        zone, pages = self._memory.zones[0], self._memory.pages
        used = np.count_nonzero(pages.refcount[zone.start : zone.end])
        movable = len(isolatable(pages, zone.start, zone.end, MODE))
        room = max(zone.free_pages - zone.watermark_min, 0) if self._types is None else 0
        return np.array([used, movable, room])

    def _open(self, transfers: Sequence[Transfer]) -> None:
        self._endpoints = {}
        for transfer in transfers:
            if transfer.source == self._node:
                self._endpoints[transfer.number] = Departure(self._lodging, transfer, self._rules)
            if transfer.target == self._node:
                self._endpoints[transfer.number] = Arrival(self._lodging)

    def _take_dropped(self) -> I64:
        proxies = self._lodging.proxies
        names, proxies.dropped = proxies.dropped, proxies.dropped[:0]
        return names

    def _drop(self, names: I64) -> None:
        proxies = self._lodging.proxies
        proxies.dropped = np.concatenate([proxies.dropped, self._lodging.guests.drop(names)])

    # draining

    @property
    def _blocks(self) -> slice:
        zone = self._memory.zones[0]
        return slice(zone.start >> PAGEBLOCK_ORDER, zone.end >> PAGEBLOCK_ORDER)

    def _begin_drain(self) -> None:
        pages = self._memory.pages
        self._types = pages.pageblock_type[self._blocks].copy()
        pages.pageblock_type[self._blocks] = MigrateType.ISOLATE
        in_use = self._in_use()
        self._fixed = sum(in_use.values()) - in_use[LRU] - in_use[GUESTS]

    def _finish_drain(self, relocation: int, why: str) -> None:
        """Pageblocks that are free are memory no longer; the others are as they were before."""
        pages, zone = self._memory.pages, self._memory.zones[0]
        zone.merge()
        free = (pages.order[zone.start : zone.end] != USED).reshape(-1, PAGEBLOCK_PAGES).all(axis=1)
        gone = (pages.kind[zone.start : zone.end] == PageKind.HOLE).reshape(-1, PAGEBLOCK_PAGES).all(axis=1)
        for block in np.flatnonzero(free).tolist():
            start = zone.start + block * PAGEBLOCK_PAGES
            take_offline(self._memory, start, start + PAGEBLOCK_PAGES)
        if self._types is not None:
            pages.pageblock_type[self._blocks] = np.where(free, MigrateType.ISOLATE, self._types)
        self._types = None
        stayed = tuple(
            Stayed(owner, count, CANNOT_MOVE if owner == UNMOVABLE else why)
            for owner, count in self._in_use().items()
            if count
        )
        count = int(np.count_nonzero(free | gone))
        self.drained.append(Drained(relocation, count, len(free), self._fixed, stayed))

    def _in_use(self) -> dict[str, int]:
        """Pages in use by owner."""
        pages, zone = self._memory.pages, self._memory.zones[0]
        span = slice(zone.start, zone.end)
        owners = pages.mapping[span][pages.refcount[span] > 0] >> OWNER_SHIFT
        counts = np.bincount(owners, minlength=len(self._memory.operations))
        found = {name: int(counts[counted.owner]) for name, counted in self._counted.items()}
        found[UNMOVABLE] = int(counts[0])
        return found
