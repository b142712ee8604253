"""Moving pages from one node to another: two owners of memory that exchange letters.

The source isolates a batch of pages and offers it; the target allocates frames and says how many; the source
lets the drivers move their pages (those that do not go are put back), frees the old frames and sends what
was in them; the target has it land. Each side keeps the letter that it wrote last, and gives it again to
whoever asks for it again. So those who carry the letters may vanish at any moment, and letters may come twice
or late: the transfer stands still until somebody goes on, and goes on as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import I64, U8, U64
from cluster.compaction.internode.foreign_pages import NO_NAME, ForeignPages, Proxies, ProxyTargets
from cluster.compaction.movable.isolation import Isolation, Putback
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.movable.migrate_pages import MigrateRules, PageMigration
from cluster.compaction.movable.page_movable import isolatable, isolated
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode, PageStateError
from cluster.compaction.pages.page_map import OWNER_SHIFT, PG_LRU, MigrateType

BATCH = 512  #: NR_MAX_BATCHED_MIGRATION: pages isolated and moved together
MODE = IsolateMode.UNEVICTABLE  #: such LRU pages, too
_WINDOW = 16 * BATCH  #: pages that a search for movable ones looks at together
_NO_PAGES: I64 = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Transfer:
    """At most `pages` pages of node `source` go to node `target`, lowest page frame numbers first.

    `relocation`: number of that which it is a part of.
    """

    number: int
    relocation: int
    source: int
    target: int
    pages: int


@dataclass(frozen=True, slots=True)
class Offer:
    """From the source: so many pages are isolated; none: the transfer is over."""

    serial: int
    pages: int


@dataclass(frozen=True, slots=True)
class Room:
    """From the target: so many frames wait for them."""

    serial: int
    pages: int


@dataclass(frozen=True, slots=True, eq=False)
class PageBatch:
    """From the source: the pages.

    names int64[n] (NO_NAME: LRU pages), contents uint64[n], kinds uint8[n], tags int64[n] (of mapping words).
    """

    serial: int
    names: I64
    contents: U64
    kinds: U8
    tags: I64


@dataclass(frozen=True, slots=True)
class Landed:
    """From the target: they are in their frames."""

    serial: int


TransferMessage = Offer | Room | PageBatch | Landed


@dataclass(slots=True)
class NodeOwners:
    """The memory of a node, and who lives there or elsewhere."""

    memory: Memory
    lru: LruPages
    guests: ForeignPages
    proxies: Proxies


class Endpoint:
    """One side of a transfer. Letters are numbered from 0; the source writes those with even numbers."""

    def __init__(self) -> None:
        self.last: TransferMessage | None = None

    def answer(self, serial: int, letter: TransferMessage | None) -> TransferMessage | None:
        """The letter with this number, which answers the one before it (None for the first).

        One that was written already is not written again, whatever is to be answered. None: not now, as a
        page is locked by someone else. Raises PageStateError for a letter out of its turn.
        """
        if self.last is not None and serial <= self.last.serial:
            return self.last
        if serial != (0 if letter is None else letter.serial + 1):
            raise PageStateError(f"letter {serial} cannot answer {letter}")
        written = self._write(serial, letter)
        self.last = self.last if written is None else written
        return written

    def _write(self, serial: int, letter: TransferMessage | None) -> TransferMessage | None:
        raise NotImplementedError


class Departure(Endpoint):
    """The source of a transfer. moved: pages sent so far; by_owner int64[owners]: of whom they were."""

    def __init__(self, lodging: NodeOwners, transfer: Transfer, rules: MigrateRules) -> None:
        super().__init__()
        self.transfer = transfer
        self.moved = 0
        self.by_owner: I64 = np.zeros(len(lodging.memory.operations), np.int64)
        self._lodging = lodging
        self._memory = lodging.memory
        self._rules = rules
        self._low = lodging.memory.zones[0].start
        self._isolated = _NO_PAGES
        self._full = False
        self._waiting = False

    @property
    def done(self) -> bool:
        return isinstance(self.last, Offer) and self.last.pages == 0

    def _write(self, serial: int, letter: TransferMessage | None) -> TransferMessage | None:
        match letter:
            case None | Landed():
                self._isolate()
                return Offer(serial, len(self._isolated))
            case Room(pages=room):
                return None if self._waits() else self._send(serial, room)
        raise PageStateError(f"{letter} is no letter to the source")

    def _isolate(self) -> None:
        """The next batch, as far as drivers let their pages go."""
        left = 0 if self._full else self.transfer.pages - self.moved
        taken = [_NO_PAGES]
        while left > 0 and (wanted := min(left, BATCH) - sum(map(len, taken))) > 0:
            chunk = self._next_movable(wanted)
            if len(chunk) == 0:
                break
            # a driver is called once for all its pages
            chunk = chunk[np.argsort(self._memory.pages.mapping[chunk], kind="stable")]
            isolation = Isolation(self._memory, chunk, MODE)
            isolation.begin()
            isolation.finish()
            taken.append(isolation.granted)
        self._isolated = np.concatenate(taken)

    def _next_movable(self, wanted: int) -> I64:
        """At most so many pages that look movable, from where the last search ended. int64[0..wanted]."""
        pages, end = self._memory.pages, self._memory.zones[-1].end
        found = _NO_PAGES
        while self._low < end and len(found) == 0:
            stop = min(self._low + _WINDOW, end)
            found = isolatable(pages, self._low, stop, MODE)[:wanted]
            stop = int(found[-1]) + 1 if len(found) else stop
            self._memory.vmstat.skipped_isolated += isolated(pages, self._low, stop)
            self._low = stop
        return found

    def _waits(self) -> bool:
        """A compactor looks at one of the batch, and has it locked."""
        locked = bool(self._memory.pages.locked(self._isolated).any())
        self._memory.vmstat.lock_waits += locked and not self._waiting
        self._waiting = locked
        return locked

    def _send(self, serial: int, room: int) -> PageBatch:
        """Drivers move as many of the batch as there is room for; the others are put back."""
        self._full = room < len(self._isolated)
        targets = ProxyTargets(self._memory, self._lodging.proxies, room)
        migration = PageMigration(self._memory, self._isolated, targets, MigrateMode.SYNC, self._rules)
        migration.run()
        self._isolated = _NO_PAGES
        Putback(self._memory, migration.left).run()
        new = np.concatenate([_NO_PAGES, *(new for _old, new in migration.moves)])
        # a driver may have taken a page, and given it up since
        return self._packed(serial, new[self._memory.pages.refcount[new] > 0])

    def _packed(self, serial: int, new: I64) -> PageBatch:
        """What is in these proxies; those of pages that are this node's business no longer are free."""
        pages, guests = self._memory.pages, self._lodging.guests
        owners = (pages.mapping[new] >> OWNER_SHIFT).astype(np.int64)
        self.by_owner += np.bincount(owners, minlength=len(self.by_owner))
        self.moved += len(new)
        contents, kinds = pages.content[new], pages.kind[new]
        tags = (pages.mapping[new] & ((1 << OWNER_SHIFT) - 1)).astype(np.int64)
        lru = pages.flags[new] & PG_LRU != 0
        visiting = owners == guests.owner
        native = ~lru & ~visiting
        names = np.full(len(new), NO_NAME)
        names[native] = self._lodging.proxies.name(new[native])
        names[visiting] = guests.leave(new[visiting])
        self._memory.put(new[lru])
        return PageBatch(serial, names, contents, kinds, tags)


class Arrival(Endpoint):
    """The target of a transfer."""

    def __init__(self, lodging: NodeOwners) -> None:
        super().__init__()
        self._lodging = lodging
        self._frames = _NO_PAGES

    def _write(self, serial: int, letter: TransferMessage | None) -> TransferMessage:
        match letter:
            case Offer(pages=wanted):
                self._frames = self._lodging.memory.alloc_bulk(wanted, MigrateType.MOVABLE)
                return Room(serial, len(self._frames))
            case PageBatch():
                self._land(letter)
                return Landed(serial)
        raise PageStateError(f"{letter} is no letter to the target")

    def _land(self, parcel: PageBatch) -> None:
        memory, count = self._lodging.memory, len(parcel.names)
        frames, unused = self._frames[:count], self._frames[count:]
        self._frames = _NO_PAGES
        memory.free(unused)
        memory.pages.content[frames] = parcel.contents
        guest = parcel.names != NO_NAME
        self._lodging.guests.admit(frames[guest], parcel.names[guest], parcel.kinds[guest])
        memory.pages.kind[frames] = parcel.kinds
        for tag in np.unique(parcel.tags[~guest]).tolist():
            self._lodging.lru.adopt(frames[~guest & (parcel.tags == tag)], tag)
