"""Mail to actors of the same machine: in memory of the sender's, where receivers read it.

Ray's object store does the same, at a millisecond an object; here a superstep's mail to all actors of a
machine is one piece of memory (memfd_create(2)), which goes when nobody has it open any more.
"""

from __future__ import annotations

import mmap
import os
import pickle
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cluster.wire.mailbox import Mail

#: Linux has what this takes. Elsewhere mail goes as it does between machines.
AVAILABLE = hasattr(os, "memfd_create")

#: Columns begin with a cache line.
_LINE = 64


class _Letter(NamedTuple):
    """Where the mail lies. Whoever unpickles a letter gets the mail itself: views, read-only."""

    path: str
    #: Where in that file what says where the columns are begins.
    contents: int

    def __reduce__(self) -> tuple[object, ...]:
        return _read, tuple(self)


def _read(path: str, contents: int) -> list[Mail]:
    with Path(path).open("rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    mail, columns = pickle.loads(memory[contents:])
    read: list[Mail] = pickle.loads(mail, buffers=[memory[start:stop] for start, stop in columns])
    return read


class Outlet:
    """What one actor sends to those of its machine.

    All have read a superstep's mail when the next superstep but one begins.
    """

    def __init__(self) -> None:
        #: Descriptors of memory by superstep.
        self._open: dict[int, int] = {}

    def begin(self, number: int) -> None:
        """This superstep begins, or one after it."""
        for earlier in [n for n in self._open if n + 1 < number]:
            os.close(self._open.pop(earlier))

    def close(self) -> None:
        """Nothing is to be read any more."""
        while self._open:
            os.close(self._open.popitem()[1])

    def put(self, number: int, mail: list[Mail]) -> bytes:
        """A pickled letter, the same for all who receive some of it."""
        self._open[number] = memory = os.memfd_create("ksmcluster mail")
        columns: list[pickle.PickleBuffer] = []
        packed = pickle.dumps(mail, 5, buffer_callback=columns.append)
        # Written, as fresh memory takes twice as long to be mapped and filled.
        with open(memory, "wb", closefd=False) as file:
            where = [_append(file, column.raw()) for column in columns]
            letter = _Letter(f"/proc/{os.getpid()}/fd/{memory}", file.tell())
            pickle.dump((packed, where), file, 5)
        return pickle.dumps(letter, 5)


def _append(file: BinaryIO, column: memoryview) -> tuple[int, int]:
    """The bytes of the file that hold the column now."""
    start = file.tell()
    stop = start + file.write(column)
    file.write(bytes(-stop % _LINE))
    return start, stop
