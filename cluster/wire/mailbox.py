"""Mail between nodes: for each kind of message a table of numpy columns, one row a message.

A node fills an `Outbox` during a superstep. `Outbox.pack` sorts each table by destination; `receive` joins
what a node gets in the next superstep, in the order of the sending nodes. This order does not depend on how
nodes are spread over actors, so neither does any result.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes
from cluster.arrays.words import I64, Array
from cluster.wire.messages import Kind, check_columns

#: The messages that a node gets, from one node or from all: columns by kind.
Inbox = dict[Kind, tuple[Array, ...]]


class MessageTable(NamedTuple):
    """Messages of one kind for several nodes: to[i], ascending, gets rows [bounds[i], bounds[i + 1])."""

    to: tuple[int, ...]
    bounds: tuple[int, ...]
    columns: tuple[Array, ...]

    def among(self, low: int, high: int) -> MessageTable | None:
        """Return the messages to nodes [low, high) as views, or None if there are none."""
        first, last = bisect_left(self.to, low), bisect_left(self.to, high)
        if first == last:
            return None
        bounds = self.bounds[first : last + 1]
        start, stop = bounds[0], bounds[-1]
        columns = tuple(column[start:stop] for column in self.columns)
        return MessageTable(self.to[first:last], tuple(bound - start for bound in bounds), columns)


class Mail(NamedTuple):
    """The messages of one node in one superstep, in whole columns, which can be passed on without a copy."""

    sender: int
    tables: dict[Kind, MessageTable]

    @property
    def to(self) -> tuple[int, ...]:
        """The receiving nodes, ascending."""
        return tuple(sorted({node for table in self.tables.values() for node in table.to}))

    @property
    def nbytes(self) -> int:
        """The bytes of all columns."""
        return sum(column.nbytes for table in self.tables.values() for column in table.columns)

    def among(self, low: int, high: int) -> Mail:
        """Return the messages to nodes [low, high) as views."""
        parts = {kind: table.among(low, high) for kind, table in self.tables.items()}
        return Mail(self.sender, {kind: part for kind, part in parts.items() if part})

    def inboxes(self) -> dict[int, Inbox]:
        """Return views of the messages by receiving node."""
        inboxes: dict[int, Inbox] = {}
        for kind, (to, bounds, columns) in self.tables.items():
            for node, (low, high) in zip(to, pairwise(bounds), strict=True):
                inboxes.setdefault(node, {})[kind] = tuple(column[low:high] for column in columns)
        return inboxes


class Outbox:
    """Collects the messages of one node in one superstep."""

    #: Check messages against their schema, here and in `cluster.machine.node`. Tests switch it on.
    check = False

    def __init__(self, node: int, nodes: int) -> None:
        self._node = node
        # numpy sorts bytes several times as fast as longer words.
        self._node_type = np.min_scalar_type(nodes - 1)
        #: By kind, the parts of each column; the first column holds the receiving nodes.
        self._parts: dict[Kind, list[list[Array]]] = {}
        #: Payload bytes sent to other nodes since the start.
        self.bytes_sent = 0

    def send(self, kind: Kind, to: I64 | int, *columns: Array) -> None:
        """Add messages with these columns; `to` is the receiving node of each row, or of all rows."""
        if self.check:
            check_columns(kind, columns)
        if len(columns[0]) == 0:
            return
        if isinstance(to, int):
            to = np.full(len(columns[0]), to)
        table = self._parts.setdefault(kind, [[] for _ in range(1 + len(columns))])
        for parts, column in zip(table, (to.astype(self._node_type), *columns), strict=True):
            parts.append(column)

    def pack(self) -> Mail:
        """Return all messages and empty the outbox."""
        parts, self._parts = self._parts, {}
        return Mail(self._node, {kind: self._by_destination(parts[kind]) for kind in sorted(parts)})

    def pending(self) -> int:
        """Return the number of messages since the last `pack`."""
        return sum(len(part) for parts in self._parts.values() for part in parts[0])

    def _by_destination(self, table: list[list[Array]]) -> MessageTable:
        to = _joined(table[0])
        order = np.argsort(to, kind="stable") if (to[1:] < to[:-1]).any() else None
        columns = [_joined(parts) if order is None else _joined(parts)[order] for parts in table[1:]]
        self.bytes_sent += int(np.count_nonzero(to != self._node)) * sum(c.nbytes // len(to) for c in columns)
        if order is not None:
            to = to[order]
        first = np.flatnonzero(changes(to))
        return MessageTable(tuple(to[first].tolist()), (*first.tolist(), len(to)), tuple(columns))


def receive(parts: Iterable[Inbox]) -> Inbox:
    """Join what several nodes sent to one node, in the order given; the receiver owns the columns."""
    rows: dict[Kind, list[tuple[Array, ...]]] = {}
    for part in parts:
        for kind, columns in part.items():
            rows.setdefault(kind, []).append(columns)
    return {kind: joined(rows[kind]) for kind in sorted(rows)}


def joined(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Join tables of the same columns in the order given."""
    return tuple(_joined(list(columns)) for columns in zip(*parts, strict=True))


def _joined(parts: list[Array]) -> Array:
    """Join the parts of a column, and clear the list, which frees the parts."""
    # Read-only columns are views of another process's memfd; copy them before it is unmapped.
    alone = len(parts) == 1 and parts[0].flags.writeable
    whole = parts[0] if alone else np.concatenate(parts)
    parts.clear()
    return whole
