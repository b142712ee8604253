"""Messages between nodes: batches of rows, one table of numpy columns a kind.

A node fills an `Outbox` during a superstep; `Outbox.pack` sorts each table by destination, and `receive`
puts together what a node gets in the next superstep, in the order of the sending nodes. That order does not
depend on how nodes are spread over actors, and neither does anything computed from it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes
from cluster.arrays.words import I64, Array
from cluster.wire.messages import Kind

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
