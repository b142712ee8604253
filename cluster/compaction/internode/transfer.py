"""Moving pages from one node to another: the two nodes send each other messages.

The source isolates a batch of pages and offers it. The target allocates frames and says how many. The source
lets the drivers move their pages, puts back those that do not move, frees the old frames and sends the
contents. The target maps the contents to its frames. Each side keeps its last message and returns it again
when it is asked for again. So a process that carries messages may die at any moment, and messages may come
twice or late: the transfer stands still until another process takes the next step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import I64, U8, U64, Pfns
from cluster.compaction.internode.foreign_pages import NO_NAME, ForeignPages, Proxies, ProxyTargets
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.isolation import Isolation, Putback
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.movable.migrate_pages import migrate_pages
from cluster.compaction.movable.page_movable import isolatable, isolated
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode, PageStateError
from cluster.compaction.pages.page_map import OWNER_SHIFT, PG_LRU, MigrateType

BATCH = 512  #: NR_MAX_BATCHED_MIGRATION: pages isolated and moved together
MODE = IsolateMode.UNEVICTABLE  #: unevictable LRU pages move too
_WINDOW = 16 * BATCH  #: pages that a search for movable ones looks at together
_NO_PAGES: Pfns = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Transfer:
    """At most `count` pages go from node `source` to node `target`, lowest page frame numbers first.

    number: of the transfer in its round. relocation: index of the scenario's relocation it is a part of.
    """

    number: int
    relocation: int
    source: int
    target: int
    count: int


@dataclass(frozen=True, slots=True)
class Offer:
    """From the source: `count` pages are isolated. 0: the transfer is over."""

    serial: int
    count: int


@dataclass(frozen=True, slots=True)
class FramesAllocated:
    """From the target: `count` frames are allocated for the pages of the offer."""

    serial: int
    count: int


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
class PagesPlaced:
    """From the target: the pages are in their frames."""

    serial: int


TransferMessage = Offer | FramesAllocated | PageBatch | PagesPlaced


@dataclass(slots=True)
class NodeOwners:
    """The memory of a node, and the owners of its pages that take part in transfers."""

    memory: Memory
    lru: LruPages
    foreign: ForeignPages
    proxies: Proxies


class TransferSide:
    """One side of a transfer. Messages are numbered from 0; the source sends those with even numbers."""

    def __init__(self) -> None:
        self.last_message: TransferMessage | None = None

    def answer(self, serial: int, message: TransferMessage | None) -> TransferMessage | None:
        """Return the message with this number, which answers `message` (None for the first).

        A message that was sent before is returned again, whatever `message` is. None: a page is locked; ask
        again later. Raises PageStateError for a message out of turn.
        """
        if self.last_message is not None and serial <= self.last_message.serial:
            return self.last_message
        if serial != (0 if message is None else message.serial + 1):
            raise PageStateError(f"message {serial} cannot answer {message}")
        answer = self._next_message(serial, message)
        if answer is not None:
            self.last_message = answer
        return answer

    def _next_message(self, serial: int, message: TransferMessage | None) -> TransferMessage | None:
        raise NotImplementedError


class TransferSource(TransferSide):
    """The source of a transfer. Isolates pages, offers them, and sends them in batches.

    moved: pages sent so far; by_owner int64[owners]: the same by owner.
    """

    def __init__(self, owners: NodeOwners, transfer: Transfer, rules: CompactionRules) -> None:
        super().__init__()
        self.transfer = transfer
        self.moved = 0
        self.by_owner: I64 = np.zeros(len(owners.memory.operations), np.int64)
        self._owners = owners
        self._memory = owners.memory
        self._rules = rules
        self._low = owners.memory.zones[0].start
        self._isolated = _NO_PAGES
        self._full = False
        self._waiting = False

    @property
    def done(self) -> bool:
        return isinstance(self.last_message, Offer) and self.last_message.count == 0

    def _next_message(self, serial: int, message: TransferMessage | None) -> TransferMessage | None:
        match message:
            case None | PagesPlaced():
                self._isolate()
                return Offer(serial, len(self._isolated))
            case FramesAllocated(count=frames):
                return None if self._note_lock_wait() else self._send(serial, frames)
        raise PageStateError(f"a source does not take {message}")

    def _isolate(self) -> None:
        """Isolate the next batch, without the pages that their drivers refuse to isolate."""
        left = 0 if self._full else self.transfer.count - self.moved
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

    def _next_movable(self, wanted: int) -> Pfns:
        """Find the next pages that look movable, at most `wanted`. int64[0..wanted]."""
        pages, end = self._memory.pages, self._memory.zones[-1].end
        found = _NO_PAGES
        while self._low < end and len(found) == 0:
            stop = min(self._low + _WINDOW, end)
            found = isolatable(pages, self._low, stop, MODE)[:wanted]
            stop = int(found[-1]) + 1 if len(found) else stop
            self._memory.vmstat.skipped_isolated += isolated(pages, self._low, stop)
            self._low = stop
        return found

    def _note_lock_wait(self) -> bool:
        """Return whether a compactor has a page of the batch locked, and count the wait once in `vmstat`."""
        locked = bool(self._memory.pages.locked(self._isolated).any())
        self._memory.vmstat.lock_waits += locked and not self._waiting
        self._waiting = locked
        return locked

    def _send(self, serial: int, frames: int) -> PageBatch:
        """Let the drivers move at most `frames` pages of the batch to proxies, and put the others back."""
        self._full = frames < len(self._isolated)
        targets = ProxyTargets(self._memory, self._owners.proxies, frames)
        migration = migrate_pages(self._memory, self._isolated, targets, MigrateMode.SYNC, self._rules)
        migration.run()
        self._isolated = _NO_PAGES
        Putback(self._memory, migration.left).run()
        new = np.concatenate([_NO_PAGES, *(new for _old, new in migration.moves)])
        # a driver may have taken a page, and given it up since
        return self._packed(serial, new[self._memory.pages.refcount[new] > 0])

    def _packed(self, serial: int, new: Pfns) -> PageBatch:
        """Return the pages in these proxies as a message. Proxies of LRU and foreign pages become free."""
        pages, foreign = self._memory.pages, self._owners.foreign
        owners = (pages.mapping[new] >> OWNER_SHIFT).astype(np.int64)
        self.by_owner += np.bincount(owners, minlength=len(self.by_owner))
        self.moved += len(new)
        contents, kinds = pages.content[new], pages.kind[new]
        tags = (pages.mapping[new] & ((1 << OWNER_SHIFT) - 1)).astype(np.int64)
        lru = pages.flags[new] & PG_LRU != 0
        is_foreign = owners == foreign.owner
        native = ~lru & ~is_foreign
        names = np.full(len(new), NO_NAME)
        names[native] = self._owners.proxies.assign_names(new[native])
        names[is_foreign] = foreign.leave(new[is_foreign])
        self._memory.put(new[lru])
        return PageBatch(serial, names, contents, kinds, tags)


class TransferTarget(TransferSide):
    """The target of a transfer. Allocates frames for offered pages and puts the pages into them."""

    def __init__(self, owners: NodeOwners) -> None:
        super().__init__()
        self._owners = owners
        self._frames = _NO_PAGES

    def _next_message(self, serial: int, message: TransferMessage | None) -> TransferMessage:
        match message:
            case Offer(count=wanted):
                self._frames = self._owners.memory.alloc_bulk(wanted, MigrateType.MOVABLE)
                return FramesAllocated(serial, len(self._frames))
            case PageBatch():
                self._place(message)
                return PagesPlaced(serial)
        raise PageStateError(f"a target does not take {message}")

    def _place(self, batch: PageBatch) -> None:
        """Put the pages into the allocated frames; free the frames that are left over."""
        memory, count = self._owners.memory, len(batch.names)
        frames, unused = self._frames[:count], self._frames[count:]
        self._frames = _NO_PAGES
        memory.free(unused)
        memory.pages.content[frames] = batch.contents
        foreign = batch.names != NO_NAME
        self._owners.foreign.admit(frames[foreign], batch.names[foreign], batch.kinds[foreign])
        memory.pages.set_kind(frames, batch.kinds)
        for tag in np.unique(batch.tags[~foreign]).tolist():
            self._owners.lru.adopt(frames[~foreign & (batch.tags == tag)], tag)
