"""Parcels between processes: one buffer for all of them, out of which arrays are taken without copying.

A buffer is the length of its head (int64), the pickled head, and the columns, each 8-byte aligned. Rows lie
by kind, then receiving node, then sending node, so that a node gets its rows of a kind as one piece.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from cluster.mailbox import Inbox, Kind
from cluster.words import U8, Array

#: Messages under way: from node, to node, what.
Parcels = list[tuple[int, int, Inbox]]

_WORD = 8


class _Table(NamedTuple):
    """All rows of one kind."""

    kind: Kind
    #: The receiving nodes, ascending, and how many rows each of them gets.
    to: tuple[int, ...]
    rows: tuple[int, ...]
    #: Data type and shape of a row, by column.
    columns: tuple[tuple[str, tuple[int, ...]], ...]

    def sizes(self) -> list[int]:
        """Bytes of each column, with what it takes to align the next one."""
        rows = sum(self.rows)
        return [_aligned(rows * _row_bytes(*column)) for column in self.columns]


def packed(parcels: Parcels) -> U8:
    """Messages of one process for others; the first to write is named as the sender of all."""
    parts: dict[Kind, list[tuple[int, tuple[Array, ...]]]] = {}
    for _, to, inbox in sorted(parcels, key=lambda parcel: (parcel[1], parcel[0])):
        for kind, columns in inbox.items():
            parts.setdefault(kind, []).append((to, columns))
    tables = [_table(kind, of_kind) for kind, of_kind in parts.items()]
    head = pickle.dumps((min(parcel[0] for parcel in parcels), tables), 5)
    at = _aligned(_WORD + len(head))
    buffer = np.empty(at + sum(sum(table.sizes()) for table in tables), np.uint8)
    buffer[:_WORD].view(np.int64)[0] = len(head)
    buffer[_WORD : _WORD + len(head)] = np.frombuffer(head, np.uint8)
    for table, of_kind in zip(tables, parts.values(), strict=True):
        for number, size in enumerate(table.sizes()):
            column = _column(buffer, at, table, number)
            np.concatenate([columns[number] for _, columns in of_kind], out=column, casting="equiv")
            at += size
    return buffer


def unpacked(buffer: Array | bytes, to: Collection[int]) -> Parcels:
    """Those of the messages that go to these nodes; their columns are views of the buffer."""
    buffer = np.frombuffer(buffer, np.uint8)
    length = int(buffer[:_WORD].view(np.int64)[0])
    sender, tables = pickle.loads(buffer[_WORD : _WORD + length].data)
    at = _aligned(_WORD + length)
    inboxes: dict[int, Inbox] = {}
    for table in tables:
        columns = []
        for number, size in enumerate(table.sizes()):
            columns.append(_column(buffer, at, table, number))
            at += size
        low = 0
        for node, rows in zip(table.to, table.rows, strict=True):
            if node in to:
                mine = tuple(column[low : low + rows] for column in columns)
                inboxes.setdefault(node, {})[table.kind] = mine
            low += rows
    return [(sender, node, inbox) for node, inbox in inboxes.items()]


def _table(kind: Kind, parts: list[tuple[int, tuple[Array, ...]]]) -> _Table:
    rows: dict[int, int] = {}
    for to, columns in parts:
        rows[to] = rows.get(to, 0) + len(columns[0])
    first = parts[0][1]
    return _Table(kind, tuple(rows), tuple(rows.values()), tuple((c.dtype.str, c.shape[1:]) for c in first))


def _column(buffer: U8, at: int, table: _Table, number: int) -> Array:
    dtype, shape = table.columns[number]
    rows = sum(table.rows)
    column: Array = buffer[at : at + rows * _row_bytes(dtype, shape)].view(dtype).reshape(rows, *shape)
    return column


def _row_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _aligned(size: int) -> int:
    return -(-size // _WORD) * _WORD
