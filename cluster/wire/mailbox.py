"""Messages between nodes: batches of rows, one table of numpy columns a kind.

A node fills an `Outbox` during a superstep; `Outbox.pack` sorts each table by destination, and `receive`
puts together what a node gets in the next superstep, in the order of the sending nodes. That order does not
depend on how nodes are spread over actors, and neither does anything computed from it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes
from cluster.arrays.words import I64, Array


class Kind(IntEnum):
    """What a message says; the columns of its table are given behind it."""

    #: Give me a frame: slot, item key, content id, attempt, source (see `Placement`).
    ALLOC = 0
    #: The frame, or -1: slot, frame, content id, attempt, source.
    ALLOC_REPLY = 1
    #: New content of a private frame: frame, content id.
    SET_CONTENT = 2
    #: More mappings: frame, how many. Before PUT, so that no frame goes that is about to be mapped.
    GET = 3
    #: One mapping less: frame.
    PUT = 4
    #: What is in this frame: slot, item key, frame.
    CONTENT_REQUEST = 5
    #: slot, item key, content.
    CONTENT_REPLY = 6
    #: A visit of ksmd that concerns the trees: digest, item key, frame, event.
    EVENT = 7
    #: A page that waited in the unstable tree does so no longer: digest, item key.
    WITHDRAW = 8
    #: A KSM frame was freed: digest, frame.
    STALE = 9
    #: A stable node was dropped with all its items: frame.
    DROPPED = 10
    #: This page waits in the unstable tree now: item key, digest.
    WAIT = 11
    #: This page has the content of another digest by now: item key, digest. Before those that merge it.
    REKEY = 12
    #: This page's frame has become a KSM frame: item key, frame.
    STABLE = 13
    #: Map this KSM frame instead: item key, frame.
    MERGE = 14
    #: A private frame becomes a KSM frame: frame.
    MAKE_KSM = 15
    #: Byte comparison, at the node of the page: item key, old frame, KSM frame, digest.
    COMPARE_SOURCE = 16
    #: ... at the node of the KSM frame: item key, KSM frame, digest, uint8[4096] the bytes.
    COMPARE_TARGET = 17
    #: ... and what came of it: item key, KSM frame, digest, 1 if equal.
    VERDICT = 18
    #: More or fewer items hang on this stable node: digest, frame, how many more.
    RECOUNT = 19
    #: The page waiting with this digest has another frame now, or is gone (-1): digest, item key, frame.
    WAIT_FRAME = 20
    #: Copy this frame, which then loses a mapping, into a private one: frame, private frame.
    COPY = 21
    #: What a private frame holds: frame, digest and, with bytes, uint8[4096].
    FILL = 22
    #: The item of this page hangs on the stable node of the KSM frame that the page maps: item key, 1 if its
    #: checksum was not compared.
    ADDED_TO_STABLE = 23
    #: It is in no tree: item key, 1 if its checksum was compared.
    REMOVED_FROM_TREES = 24
    #: This page's frame has become a KSM frame without a stable node: item key, frame, digest.
    BREAK = 25
    #: Map the shared zero page instead: item key.
    MAP_ZERO = 26
    #: The swap cache refers to this frame; it does so no longer: frame.
    PIN = 27
    UNPIN = 28
    #: Is this the only mapping, and what does it hold: slot, item key, frame.
    SWAP_REQUEST = 29
    #: slot, frame, digest, and, with bytes, uint8[4096]; only of those that can be swapped out.
    SWAP_REPLY = 30
    #: Migrate this frame: frame, node.
    MIGRATE = 31
    #: How many mappings of this KSM frame does reverse mapping find: frame.
    RMAP_WALK = 32
    #: frame, how many.
    RMAP_FOUND = 33
    #: A frame moves in: old frame, digest, mapping word, pins, map count, and uint8[4096] if
    #: there are bytes.
    MOVE_IN = 34
    #: It is here now: old frame, new frame, digest.
    MOVED = 35
    #: It has left: old frame.
    MOVED_OUT = 36
    #: A stable node whose frame has moved to this node, but not into its tree: digest, frame, items, dead.
    MIGRATING = 37
    #: The tree that had such a stable node before has it no longer: frame.
    UNLINKED = 38
    #: It is in the tree of its frame's node now: frame.
    LANDED = 39
    #: The page waiting with this digest holds something else now: digest, item key, digest.
    WAIT_CONTENT = 40
    #: What a node has of this frame before a compaction: frame, mappings that reverse mapping does not find,
    #: references of the swap cache.
    HELD = 41
    #: A node maps this frame of another one: frame, node, how often.
    MAPPED = 42
    #: The swap cache has this KSM frame: does anybody map it: frame.
    CACHED = 43
    #: Nobody does: digest, frame.
    UNMAPPED = 44
    #: Its stable node was removed all the same: frame.
    ORPHANED = 45


#: What one node sends another, or all that it gets: columns by kind.
Inbox = dict[Kind, tuple[Array, ...]]


class Table(NamedTuple):
    """Rows of one kind for several nodes: to[i], ascending, gets rows bounds[i] to bounds[i + 1]."""

    to: tuple[int, ...]
    bounds: tuple[int, ...]
    columns: tuple[Array, ...]

    def among(self, low: int, high: int) -> Table | None:
        """What goes to nodes low..high-1, if any does: views."""
        first, last = bisect_left(self.to, low), bisect_left(self.to, high)
        if first == last:
            return None
        bounds = self.bounds[first : last + 1]
        start, stop = bounds[0], bounds[-1]
        columns = tuple(column[start:stop] for column in self.columns)
        return Table(self.to[first:last], tuple(bound - start for bound in bounds), columns)


class Mail(NamedTuple):
    """What one node sends in one superstep. Whole columns, so that a process can pass them on as they are."""

    sender: int
    tables: dict[Kind, Table]

    @property
    def to(self) -> tuple[int, ...]:
        """The receiving nodes, ascending."""
        return tuple(sorted({node for table in self.tables.values() for node in table.to}))

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for table in self.tables.values() for column in table.columns)

    def among(self, low: int, high: int) -> Mail:
        """What goes to nodes low..high-1: views."""
        parts = {kind: table.among(low, high) for kind, table in self.tables.items()}
        return Mail(self.sender, {kind: part for kind, part in parts.items() if part})

    def inboxes(self) -> dict[int, Inbox]:
        """By receiving node: views."""
        inboxes: dict[int, Inbox] = {}
        for kind, (to, bounds, columns) in self.tables.items():
            for node, (low, high) in zip(to, pairwise(bounds), strict=True):
                inboxes.setdefault(node, {})[kind] = tuple(column[low:high] for column in columns)
        return inboxes


class Outbox:
    """What one node sends in one superstep."""

    def __init__(self, node: int, nodes: int) -> None:
        self._node = node
        # numpy sorts bytes several times as fast as longer words.
        self._node_type = np.min_scalar_type(nodes - 1)
        #: By kind the parts of each column, that of the receiving nodes first.
        self._parts: dict[Kind, list[list[Array]]] = {}
        #: Payload bytes sent to other nodes since the start.
        self.bytes_sent = 0

    def send(self, kind: Kind, to: I64 | int, *columns: Array) -> None:
        """Adds rows; `to` is a node for each row, or one for all."""
        if len(columns[0]) == 0:
            return
        if isinstance(to, int):
            to = np.full(len(columns[0]), to)
        table = self._parts.setdefault(kind, [[] for _ in range(1 + len(columns))])
        for parts, column in zip(table, (to.astype(self._node_type), *columns), strict=True):
            parts.append(column)

    def pack(self) -> Mail:
        """All messages; the outbox is empty afterwards."""
        parts, self._parts = self._parts, {}
        return Mail(self._node, {kind: self._by_destination(parts[kind]) for kind in sorted(parts)})

    def _by_destination(self, table: list[list[Array]]) -> Table:
        to = _joined(table[0])
        order = np.argsort(to, kind="stable") if (to[1:] < to[:-1]).any() else None
        columns = [_joined(parts) if order is None else _joined(parts)[order] for parts in table[1:]]
        self.bytes_sent += int(np.count_nonzero(to != self._node)) * sum(c.nbytes // len(to) for c in columns)
        if order is not None:
            to = to[order]
        first = np.flatnonzero(changes(to))
        return Table(tuple(to[first].tolist()), (*first.tolist(), len(to)), tuple(columns))


def receive(parts: Iterable[Inbox]) -> Inbox:
    """What several nodes sent to one, put together in the order given; columns of its own, to be kept."""
    rows: dict[Kind, list[tuple[Array, ...]]] = {}
    for part in parts:
        for kind, columns in part.items():
            rows.setdefault(kind, []).append(columns)
    return {kind: joined(rows[kind]) for kind in sorted(rows)}


def joined(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Tables of the same columns, one behind the other."""
    return tuple(_joined(list(columns)) for columns in zip(*parts, strict=True))


def _joined(parts: list[Array]) -> Array:
    """Parts of a column, one behind the other; the list lets go of them, so that their memory can be used."""
    # What is read-only is in memory of another process, which is to go.
    alone = len(parts) == 1 and parts[0].flags.writeable
    whole = parts[0] if alone else np.concatenate(parts)
    parts.clear()
    return whole
