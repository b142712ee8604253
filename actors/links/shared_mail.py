"""Mail between actors of one machine, in memory of the sender that the receivers map.

Ray's object store does the same, at a millisecond an object. Here the mail of a superstep to all actors of a
machine is one file in memory (memfd_create(2)), which is freed when no process has it open or mapped.

A receiver opens the file below /proc/PID of the sender. A sandbox or a namespace of its own may forbid that,
or lead to another file. So an actor tries both when it starts, and a receiver checks what it opens.
"""

from __future__ import annotations

import mmap
import os
import pickle
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cluster.wire.mailbox import Mail

#: Columns begin at multiples of a cache line.
_LINE_SIZE = 64

#: Bytes at the start of each file that no other file has.
_NONCE_SIZE = 16


class UnreadableMailError(Exception):
    """This process cannot open the mail, or what it opened is not the mail."""


class _MailLocation(NamedTuple):
    """Where mail lies. Unpickling a location gives the mail itself, whose columns are read-only views."""

    path: str
    #: The device and the inode of the file.
    file: tuple[int, int]
    nonce: bytes
    #: Where in the file the pickled table of contents begins: the mail without its columns, and their places.
    contents: int

    def __reduce__(self) -> tuple[object, ...]:
        return _read, tuple(self)


def _read(path: str, file: tuple[int, int], nonce: bytes, contents: int) -> list[Mail]:
    memory = _opened(path, file)
    _check(memory[: len(nonce)] == nonce)
    return _unpickled(memory, contents)


def _unpickled(memory: memoryview, contents: int) -> list[Mail]:
    mail, columns = pickle.loads(memory[contents:])
    read: list[Mail] = pickle.loads(mail, buffers=[memory[start:stop] for start, stop in columns])
    return read


def _opened(path: str, file: tuple[int, int]) -> memoryview:
    """Map a file of a sender. Raises UnreadableMailError if it cannot be opened, or is another one."""
    try:
        # Before it is opened: to open a pipe may take forever, and to open a device may start something.
        _check(_identity(Path(path).stat()) == file)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_identity(os.fstat(descriptor)) == file)
            return _mapped(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise UnreadableMailError(str(error)) from error


def _mapped(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))


def _check(same: bool) -> None:
    if not same:
        raise UnreadableMailError("another file than the sender's")


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and the inode of a file."""
    return status.st_dev, status.st_ino


class SharedMail:
    """The mail that one actor sends to the actors of its machine.

    Mail of superstep s is read during superstep s + 1, and freed when superstep s + 2 begins.
    """

    def __init__(self) -> None:
        #: File descriptors and locations by superstep.
        self._open: dict[int, tuple[int, _MailLocation]] = {}
        #: Whether mail can be shared. Once it fails, it is not tried again.
        self.works = True
        self.works = self._can_read_back()

    def _can_read_back(self) -> bool:
        probe = self.put(0, [])
        try:
            return probe is not None and pickle.loads(probe) == []
        except UnreadableMailError:
            return False
        finally:
            self.close()

    def begin(self, seq: int) -> None:
        """Begin a superstep: free the mail that all have read."""
        for earlier in [n for n in self._open if n + 1 < seq]:
            os.close(self._open.pop(earlier)[0])

    def close(self) -> None:
        """Free all mail."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def put(self, seq: int, mail: list[Mail]) -> bytes | None:
        """Write the mail of a superstep; return bytes that unpickle to it in the processes of the machine.

        Returns None if it cannot be shared.
        """
        if not self.works:
            return None
        try:
            memory = os.memfd_create("ksmcluster mail")
        except (AttributeError, OSError):  # another system than Linux; forbidden, or too many open files
            self.works = False
            return None
        try:
            location = _write(memory, mail)
        except OSError:  # no memory, or more than the largest file that is allowed
            os.close(memory)
            self.works = False
            return None
        self._open[seq] = memory, location
        return pickle.dumps(location, 5)

    def take_back(self, seq: int) -> list[Mail]:
        """Return the mail of a superstep, which is not freed yet; [] if there is none."""
        if seq not in self._open:
            return []
        memory, location = self._open[seq]
        return _unpickled(_mapped(memory), location.contents)


def _write(memory: int, mail: list[Mail]) -> _MailLocation:
    """Write mail into an empty file; return its location."""
    columns: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(mail, 5, buffer_callback=columns.append)
    nonce = os.urandom(_NONCE_SIZE)
    # Written, not mapped: mapping and filling fresh memory takes twice as long.
    with open(memory, "wb", closefd=False) as file:
        _append(file, memoryview(nonce))
        places = [_append(file, column.raw()) for column in columns]
        contents = file.tell()
        pickle.dump((packed, places), file, 5)
    return _MailLocation(f"/proc/{os.getpid()}/fd/{memory}", _identity(os.fstat(memory)), nonce, contents)


def _append(file: BinaryIO, column: memoryview) -> tuple[int, int]:
    """Write a column; return the range of the file that holds it."""
    start = file.tell()
    stop = start + file.write(column)
    file.write(bytes(-stop % _LINE_SIZE))
    return start, stop
