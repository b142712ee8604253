"""Mail between processes in parcels: all that one process sends to another one, in a single piece of bytes.

Tables of columns are quick to make and to read if they are long. Where there are few messages for each of
many receivers, most of the time would go into the tables, and parcels take a tenth of it.

A parcel begins with int64 words: how many pieces it has, then the kind of messages, the columns and the bytes
of each. The pieces follow: records of a receiving node and the columns of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, cast

import numpy as np

from cluster.arrays.words import Array
from cluster.spec.content import PAGE_SIZE
from cluster.wire.mailbox import Mail, MessageTable, by_receiver
from cluster.wire.messages import MESSAGES, Kind
from cluster.wire.narrow import widened

_WORD = 8
#: Words for each piece.
_PIECE = 3


class Parcel(NamedTuple):
    """All messages of a process, whose first node is `sender`, to another one."""

    sender: int
    data: bytes | memoryview


def packed(mail: Sequence[Mail], ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return a parcel for the nodes of each of these ranges low..high-1, which ascend."""
    edges = np.array(ranges).reshape(-1)
    heads: list[list[int]] = [[] for _ in ranges]
    pieces: list[list[memoryview]] = [[] for _ in ranges]
    for kind, table in (of_kind for sent in mail for of_kind in sent.all_tables()):
        records = _records(kind, table)
        raw, columns = records.view(np.uint8).data, len(table.columns)
        cuts = (table.bounds[np.searchsorted(table.to, edges)] * records.itemsize).tolist()
        for head, of_range, low, high in zip(heads, pieces, cuts[::2], cuts[1::2], strict=True):
            if low < high:
                head += kind, columns, high - low
                of_range.append(raw[low:high])
    return [
        b"".join([np.array([len(of_range), *head]).data, *of_range])
        for head, of_range in zip(heads, pieces, strict=True)
    ]


def unpacked(parcels: Sequence[Parcel]) -> Mail:
    """Return the messages in the parcels of several senders, ascending, as if the first one had sent them."""
    pieces: dict[tuple[int, int], list[memoryview]] = {}
    for parcel in parcels:
        data = memoryview(parcel.data)
        at = _WORD * (1 + _PIECE * data[:_WORD].cast("q")[0])
        head = data[_WORD:at].cast("q").tolist()
        for kind, columns, size in zip(head[::_PIECE], head[1::_PIECE], head[2::_PIECE], strict=True):
            pieces.setdefault((kind, columns), []).append(data[at : at + size])
            at += size
    tables: dict[Kind, tuple[MessageTable, ...]] = {}
    for (kind, columns), of_kind in pieces.items():
        records = np.frombuffer(b"".join(of_kind), _layout(Kind(kind), columns))
        to, *names = records.dtype.names or ()
        tables[Kind(kind)] = (by_receiver(records[to], (records[name] for name in names)),)
    return Mail(parcels[0].sender, tables)


def together(mail: Sequence[Mail], parcels: Sequence[Parcel]) -> list[Mail]:
    """Return mail and parcels by ascending senders; parcels with no other mail between them become one."""
    everything: list[Mail | Parcel] = sorted([*mail, *parcels], key=attrgetter("sender"))
    found: list[Mail] = []
    for form, group in groupby(everything, type):
        alike = list(group)
        found += [unpacked(cast("list[Parcel]", alike))] if form is Parcel else cast("list[Mail]", alike)
    return found


@cache
def _layout(kind: Kind, columns: int) -> np.dtype[Any]:
    """Return the records of this kind of messages: with this many columns, the last may be bytes of pages."""
    named = MESSAGES[kind].columns
    data = [("data", np.uint8, PAGE_SIZE)] if columns > len(named) else []
    return np.dtype([("to", np.uint16), *named, *data])


def _records(kind: Kind, table: MessageTable) -> Array:
    records = np.empty(int(table.bounds[-1]), _layout(kind, len(table.columns)))
    records["to"] = np.repeat(table.to, np.diff(table.bounds))
    for name, column in zip(records.dtype.names[1:], table.columns, strict=True):
        records[name] = column if isinstance(column, np.ndarray) else widened([column])
    return records
