"""Mail between actors of one machine, in memory of the sender that the receivers map.

Ray's object store does the same, at a millisecond an object. Here the mail of a superstep to all actors of a
machine is one file in memory (memfd_create(2)), which is freed when no process has it open or mapped.
"""

from __future__ import annotations

import mmap
import os
import pickle
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cluster.wire.mailbox import Mail

#: Whether the system has memfd_create(2). If not, all mail goes through Ray's object store.
AVAILABLE = hasattr(os, "memfd_create")

#: Columns begin at multiples of a cache line.
_LINE_SIZE = 64


class _MailLocation(NamedTuple):
    """Where mail lies. Unpickling a location gives the mail itself, whose columns are read-only views."""

    path: str
    #: Where in the file the pickled table of contents begins: the mail without its columns, and their places.
    contents: int

    def __reduce__(self) -> tuple[object, ...]:
        return _read, tuple(self)


def _read(path: str, contents: int) -> list[Mail]:
    with Path(path).open("rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    mail, columns = pickle.loads(memory[contents:])
    read: list[Mail] = pickle.loads(mail, buffers=[memory[start:stop] for start, stop in columns])
    return read


class SharedMail:
    """The mail that one actor sends to the actors of its machine.

    Mail of superstep s is read during superstep s + 1, and freed when superstep s + 2 begins.
    """

    def __init__(self) -> None:
        #: File descriptors by superstep.
        self._open: dict[int, int] = {}

    def begin(self, seq: int) -> None:
        """Begin a superstep: free the mail that all have read."""
        for earlier in [n for n in self._open if n + 1 < seq]:
            os.close(self._open.pop(earlier))

    def close(self) -> None:
        """Free all mail."""
        while self._open:
            os.close(self._open.popitem()[1])

    def put(self, seq: int, mail: list[Mail]) -> bytes:
        """Write the mail of a superstep; return bytes that unpickle to it in every process of the machine."""
        self._open[seq] = memory = os.memfd_create("ksmcluster mail")
        columns: list[pickle.PickleBuffer] = []
        packed = pickle.dumps(mail, 5, buffer_callback=columns.append)
        # Written, not mapped: mapping and filling fresh memory takes twice as long.
        with open(memory, "wb", closefd=False) as file:
            places = [_append(file, column.raw()) for column in columns]
            location = _MailLocation(f"/proc/{os.getpid()}/fd/{memory}", file.tell())
            pickle.dump((packed, places), file, 5)
        return pickle.dumps(location, 5)


def _append(file: BinaryIO, column: memoryview) -> tuple[int, int]:
    """Write a column; return the range of the file that holds it."""
    start = file.tell()
    stop = start + file.write(column)
    file.write(bytes(-stop % _LINE_SIZE))
    return start, stop
