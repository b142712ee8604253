"""What a file with an actor's mail of a superstep holds, and how the receivers of its machine read it.

Much mail for each receiver lies there in columns, which all receivers map. With little for each of many, the
file holds a parcel for each of them, and they read their own.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

from actors.links.shared_file import SharedFile, check, mapped
from cluster.wire.mailbox import Mail
from cluster.wire.parcels import Parcel, unpacked

#: Columns begin at multiples of a cache line.
_LINE_SIZE = 64

#: Bytes before mail that no other file has there.
_NONCE_SIZE = 16


class Layout(Protocol):
    """Where in a file the mail is."""

    def locations(self, file: SharedFile) -> dict[int, bytes]:
        """Return for each receiver bytes that unpickle to its mail, on the machine where `file` holds it."""

    def read_back(self, memory: memoryview) -> list[Mail]:
        """Return all mail in the file."""


class MailFile(NamedTuple):
    """What a file with mail holds, in parts, which are the columns themselves and what is between them."""

    parts: Sequence[bytes | memoryview]
    size: int
    layout: Layout

    def write(self, file: BinaryIO) -> None:
        """Write all parts. Raises OSError."""
        file.writelines(self.parts)


def columns_file(mail: list[Mail], receivers: Collection[int]) -> MailFile:
    """Return a file with this mail, of which each receiver takes its rows."""
    columns: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(mail, 5, buffer_callback=columns.append)
    nonce = os.urandom(_NONCE_SIZE)
    parts: list[bytes | memoryview] = [nonce]
    size, places = len(nonce), []
    for column in columns:
        raw = column.raw()
        places.append((size, size + raw.nbytes))
        padding = bytes(-places[-1][1] % _LINE_SIZE)
        parts += raw, padding
        size += raw.nbytes + len(padding)
    parts.append(pickle.dumps((packed, places), 5))
    return MailFile(parts, size + len(parts[-1]), _Columns(nonce, size, tuple(receivers)))


def parcels_file(sender: int, parcels: Mapping[int, bytes]) -> MailFile:
    """Return a file with the parcels of a sender, by receiver."""
    nonce = os.urandom(_NONCE_SIZE)
    parts: list[bytes | memoryview] = []
    size, places = 0, {}
    for receiver, parcel in parcels.items():
        places[receiver] = size, size + len(nonce) + len(parcel)
        parts += nonce, parcel
        size = places[receiver][1]
    return MailFile(parts, size, _Parcels(sender, nonce, places))


class _Columns(NamedTuple):
    nonce: bytes
    #: Where in the file the pickled table of contents begins: the mail without its columns, and their places.
    contents: int
    receivers: tuple[int, ...]

    def locations(self, file: SharedFile) -> dict[int, bytes]:
        location = _Location(_read_columns, (file, self.nonce, self.contents))
        return dict.fromkeys(self.receivers, pickle.dumps(location, 5))

    def read_back(self, memory: memoryview) -> list[Mail]:
        return _unpickled(memory, self.contents)


class _Parcels(NamedTuple):
    sender: int
    nonce: bytes
    #: Where in the file each receiver's parcel is, with the nonce before it.
    places: dict[int, tuple[int, int]]

    def locations(self, file: SharedFile) -> dict[int, bytes]:
        return {
            receiver: pickle.dumps(_Location(_read_parcel, (file, self.nonce, self.sender, *place)), 5)
            for receiver, place in self.places.items()
        }

    def read_back(self, memory: memoryview) -> list[Mail]:
        parcels = (memory[start + len(self.nonce) : stop] for start, stop in self.places.values())
        return [unpacked([Parcel(self.sender, data)]) for data in parcels]


class _Location(NamedTuple):
    """Where mail lies. Unpickling a location gives the mail itself."""

    read: Any
    arguments: tuple[object, ...]

    def __reduce__(self) -> tuple[object, ...]:
        return tuple(self)


def _read_columns(file: SharedFile, nonce: bytes, contents: int) -> list[Mail]:
    """Map a file; columns are read-only views of it."""
    memory = file.read(mapped)
    check(memory[: len(nonce)] == nonce)
    return _unpickled(memory, contents)


def _unpickled(memory: memoryview, contents: int) -> list[Mail]:
    mail, columns = pickle.loads(memory[contents:])
    read: list[Mail] = pickle.loads(mail, buffers=[memory[start:stop] for start, stop in columns])
    return read


def _read_parcel(file: SharedFile, nonce: bytes, sender: int, start: int, stop: int) -> Parcel:
    data = memoryview(file.read(lambda descriptor: os.pread(descriptor, stop - start, start)))
    check(data[: len(nonce)] == nonce and len(data) == stop - start)
    return Parcel(sender, data[len(nonce) :])
