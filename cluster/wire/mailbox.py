"""Mail between nodes: for each kind of message a table of numpy columns, one row a message.

A node fills an `Outbox` during a superstep. `Outbox.pack` sorts each table by destination; `deliveries`
joins what a node gets in the next superstep, in the order of the sending nodes. This order does not depend on
how nodes are spread over actors, so neither does any result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cluster.arrays.columns import changes
from cluster.arrays.words import I64, U16, Array
from cluster.wire.messages import Kind, check_columns
from cluster.wire.narrow import Narrow, narrowed, widened

#: The rows of one table of mail, about.
TABLE_ROWS = 1 << 17
#: Receivers whose mail is put together at once. With on average fewer rows of each sender for each receiver,
#: their rows are sorted.
BLOCK, FEW_ROWS = 256, 64
#: Columns become narrow if there are as many rows for each receiver.
NARROW_ROWS = 128

#: The messages that a node gets, from one node or from all: columns by kind.
Inbox = dict[Kind, tuple[Array, ...]]
#: A column, or a part of one.
Column = Array | Narrow


class MessageTable(NamedTuple):
    """Messages of one kind for several nodes: to[i], ascending, gets rows [bounds[i], bounds[i + 1])."""

    to: U16
    bounds: I64
    columns: tuple[Column, ...]

    def among(self, low: int, high: int) -> MessageTable | None:
        """Return the messages to nodes [low, high) as views, or None if there are none."""
        first, last = np.searchsorted(self.to, (low, high)).tolist()
        if first == last:
            return None
        if last - first == len(self.to):
            return self
        bounds = self.bounds[first : last + 1]
        columns = self.rows(int(bounds[0]), int(bounds[-1]))
        return MessageTable(self.to[first:last], bounds - bounds[0], columns)

    def rows(self, low: int, high: int) -> tuple[Column, ...]:
        """Return the rows between two bounds as views."""
        return tuple(
            column[low:high] if isinstance(column, np.ndarray) else column.part(low, high)
            for column in self.columns
        )

    def narrowed(self) -> MessageTable:
        """Return the same messages with narrow columns, if there are many for each receiver."""
        if self.bounds[-1] < NARROW_ROWS * len(self.to):
            return self
        columns = (
            narrowed(column, self.bounds) if isinstance(column, np.ndarray) else column
            for column in self.columns
        )
        return self._replace(columns=tuple(columns))


class Mail(NamedTuple):
    """The messages of one node in one superstep, in whole columns, which can be passed on without a copy.

    Where there are many, those to a few neighbouring nodes are a table of their own: its memory is free as
    soon as these nodes have taken it in.
    """

    sender: int
    #: Of each kind the tables by ascending receivers; each receiver is in one of them.
    tables: dict[Kind, tuple[MessageTable, ...]]

    def all_tables(self) -> Iterator[tuple[Kind, MessageTable]]:
        """Return all tables and their kinds."""
        return ((kind, table) for kind, tables in self.tables.items() for table in tables)

    @property
    def to(self) -> tuple[int, ...]:
        """The receiving nodes, ascending."""
        return tuple(sorted(set().union(*(table.to.tolist() for _, table in self.all_tables()))))

    @property
    def nbytes(self) -> int:
        """The bytes of all columns."""
        return sum(column.nbytes for _, table in self.all_tables() for column in table.columns)

    def among(self, low: int, high: int) -> Mail:
        """Return the messages to nodes [low, high) as views."""
        parts = {
            kind: tuple(part for table in tables if (part := table.among(low, high)))
            for kind, tables in self.tables.items()
        }
        return Mail(self.sender, {kind: tables for kind, tables in parts.items() if tables})

    def narrowed(self) -> Mail:
        """Return the same messages, with narrow columns where that takes fewer bytes."""
        tables = {kind: tuple(table.narrowed() for table in of_kind) for kind, of_kind in self.tables.items()}
        return Mail(self.sender, tables)


def among(mail: list[Mail], low: int, high: int) -> list[Mail]:
    """Return the mail to nodes low..high-1 as views."""
    parts = [sent.among(low, high) for sent in mail] if low < high else []
    return [part for part in parts if part.tables]


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

    def _by_destination(self, parts: list[list[Array]]) -> tuple[MessageTable, ...]:
        to = _joined(parts[0])
        order = np.argsort(to, kind="stable") if (to[1:] < to[:-1]).any() else None
        if order is not None:
            to = to[order]
        first = np.flatnonzero(changes(to))
        receivers, bounds = to[first].astype(np.uint16), np.append(first, len(to))
        # A receiver is in the table in which its last row falls.
        number = bounds[1:] // TABLE_ROWS if order is not None else np.zeros(len(first), np.int64)
        cuts = np.append(np.flatnonzero(changes(number)), len(receivers))
        row_cuts = bounds[cuts].tolist()
        others = int(np.count_nonzero(to != self._node))
        columns = []
        for part in parts[1:]:
            whole = _joined(part)
            self.bytes_sent += others * (whole.nbytes // len(to))
            columns.append(_cut(whole, order, row_cuts))
        return tuple(
            MessageTable(receivers[low:high], bounds[low : high + 1] - bounds[low], table)
            for (low, high), table in zip(pairwise(cuts.tolist()), zip(*columns, strict=True), strict=True)
        )


def _cut(column: Array, order: I64 | None, bounds: list[int]) -> list[Array]:
    """Return the rows of a column in this order, cut at the bounds."""
    if order is None:
        return [column[low:high] for low, high in pairwise(bounds)]
    return [column.take(order[low:high], axis=0) for low, high in pairwise(bounds)]


def merged(mail: list[Mail]) -> list[Mail]:
    """Join the mail of an actor's nodes, which are in a row, to mail of the first one.

    Mail in large pieces stays as it is. No other sender is between these nodes, so receivers find all rows in
    the order of the senders.
    """
    tables = [table for sent in mail for _, table in sent.all_tables()]
    if len(mail) < 2 or not _is_in_small_pieces(tables):
        return mail
    kinds = sorted({kind for sent in mail for kind in sent.tables})
    of_kind = {kind: [table for sent in mail for table in sent.tables.get(kind, ())] for kind in kinds}
    return [Mail(mail[0].sender, {kind: (_by_receiver(tables),) for kind, tables in of_kind.items()})]


def _is_in_small_pieces(tables: list[MessageTable]) -> bool:
    """Return whether it is quicker to sort rows by receiver than to cut them for each sender and receiver."""
    rows, pieces = sum(int(table.bounds[-1]) for table in tables), sum(len(table.to) for table in tables)
    # Those of a single table are in order.
    return len(tables) > 1 and rows < FEW_ROWS * pieces


def deliveries(mail: list[Mail], to: Sequence[int]) -> Iterator[Inbox]:
    """Yield what all nodes sent to each of the nodes `to`, ascending, in the order of the senders.

    The receivers own the columns. Empties `mail`, so that its memory is free as soon as these have it.
    """
    tables: dict[Kind, list[MessageTable]] = {}
    for sent in sorted(mail, key=lambda sent: sent.sender):
        for kind, of_kind in sent.tables.items():
            tables.setdefault(kind, []).extend(of_kind)
    mail.clear()
    for at in range(0, len(to), BLOCK):
        block = to[at : at + BLOCK]
        inboxes = _block_inboxes({kind: tables[kind] for kind in sorted(tables)}, block)
        tables = {kind: [t for t in of_kind if t.to[-1] > block[-1]] for kind, of_kind in tables.items()}
        for node in block:
            yield {kind: joined(pieces) for kind, pieces in inboxes.pop(node).items()}


def _block_inboxes(
    tables: dict[Kind, list[MessageTable]], to: Sequence[int]
) -> dict[int, dict[Kind, list[tuple[Column, ...]]]]:
    """Return for each of a few nodes the messages of each kind, in pieces of several tables."""
    inboxes: dict[int, dict[Kind, list[tuple[Column, ...]]]] = {node: {} for node in to}
    for kind, of_kind in tables.items():
        parts = [part for table in of_kind if (part := table.among(to[0], to[-1] + 1))]
        if _is_in_small_pieces(parts):
            parts = [_by_receiver(parts)]
        for table in parts:
            bounds = pairwise(table.bounds.tolist())
            for node, (low, high) in zip(table.to.tolist(), bounds, strict=True):
                inboxes[node].setdefault(kind, []).append(table.rows(low, high))
    return inboxes


def _by_receiver(tables: list[MessageTable]) -> MessageTable:
    """Join tables, and sort their messages by receiver. That is quicker than many pieces of a few rows."""
    rows = np.concatenate([np.diff(table.bounds) for table in tables])
    to = np.repeat(np.concatenate([table.to for table in tables]), rows)
    columns = zip(*(table.columns for table in tables), strict=True)
    return by_receiver(to, (widened(parts) for parts in columns))


def by_receiver(to: U16, columns: Iterable[Array]) -> MessageTable:
    """Sort messages by receiver; to[i] is that of row i. Columns are taken one after the other."""
    order = np.argsort(to, kind="stable")
    to = to[order]
    starts = np.flatnonzero(changes(to))
    return MessageTable(to[starts], np.append(starts, len(to)), tuple(column[order] for column in columns))


def joined(parts: Sequence[tuple[Column, ...]]) -> tuple[Array, ...]:
    """Join tables of the same columns in the order given."""
    return tuple(_joined(list(columns)) for columns in zip(*parts, strict=True))


def _joined(parts: list[Any]) -> Array:
    """Join the parts of a column, and clear the list, which frees the parts."""
    part: Column = parts[0]
    # Read-only columns are views of another process's memfd; copy them before it is unmapped.
    if len(parts) > 1 or not isinstance(part, np.ndarray) or not part.flags.writeable:
        part = widened(parts)
    parts.clear()
    return part
