"""Mail between actors of one machine, in memory of one of them that the others map.

Ray's object store does the same, at a millisecond an object. Here the mail of a superstep to all actors of a
machine is one file in memory (memfd_create(2)), which is freed when no process has it open or mapped. It
belongs to the sender or, if this is on another machine, to one of the receivers (`actors.links.far_mail`).

A receiver opens the file below /proc/PID of its owner. A sandbox or a namespace of its own may forbid that,
or lead to another file. So an actor tries both when it starts, and a receiver checks what it opens.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cluster.wire.mailbox import Mail

#: Columns begin at multiples of a cache line.
_LINE_SIZE = 64

#: Bytes at the start of each file that no other file has.
_NONCE_SIZE = 16


class UnreadableMailError(Exception):
    """This process cannot open the mail, or what it opened is not the mail."""


class SharedFile(NamedTuple):
    """A file in memory: its path for other processes, and its device and inode."""

    path: str
    identity: tuple[int, int]

    @classmethod
    def of(cls, memory: int) -> SharedFile:
        """Return the file of this descriptor of this process."""
        return cls(f"/proc/{os.getpid()}/fd/{memory}", _identity(os.fstat(memory)))


class _MailLocation(NamedTuple):
    """Where mail lies. Unpickling a location gives the mail itself, whose columns are read-only views."""

    file: SharedFile
    nonce: bytes
    #: Where in the file the pickled table of contents begins: the mail without its columns, and their places.
    contents: int

    def __reduce__(self) -> tuple[object, ...]:
        return _read, tuple(self)


def _read(file: SharedFile, nonce: bytes, contents: int) -> list[Mail]:
    memory = _opened(*file)
    _check(memory[: len(nonce)] == nonce)
    return _unpickled(memory, contents)


def _unpickled(memory: memoryview, contents: int) -> list[Mail]:
    mail, columns = pickle.loads(memory[contents:])
    read: list[Mail] = pickle.loads(mail, buffers=[memory[start:stop] for start, stop in columns])
    return read


def _opened(path: str, identity: tuple[int, int]) -> memoryview:
    """Map a file of another actor. Raises UnreadableMailError if it cannot be opened, or is another one."""
    try:
        # Before it is opened: to open a pipe may take forever, and to open a device may start something.
        _check(_identity(Path(path).stat()) == identity)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_identity(os.fstat(descriptor)) == identity)
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


def read_mail(pickled: Mapping[int, bytes]) -> tuple[list[Mail], list[int]]:
    """Unpickle the mail of each sender; return the mail, and the senders whose mail cannot be read."""
    mail: list[Mail] = []
    unreadable = []
    for sender, packed in pickled.items():
        try:
            mail += pickle.loads(packed)
        except UnreadableMailError:
            unreadable.append(sender)
    return mail, unreadable


class MailFile(NamedTuple):
    """What a file with mail holds, in parts, which are the columns themselves and what is between them."""

    parts: Sequence[bytes | memoryview]
    nonce: bytes
    contents: int

    @classmethod
    def of(cls, mail: list[Mail]) -> MailFile:
        """Return the file for this mail."""
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
        return cls(parts, nonce, size)

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return self.contents + len(self.parts[-1])

    def write(self, file: BinaryIO) -> None:
        """Write all parts. Raises OSError."""
        file.writelines(self.parts)

    def at(self, file: SharedFile) -> bytes:
        """Return bytes that unpickle to the mail, in the processes of the machine where it lies in `file`."""
        return pickle.dumps(_MailLocation(file, self.nonce, self.contents), 5)


class SharedMail:
    """The mail that one actor shares with the actors of its machine.

    Mail of superstep s is read during superstep s + 1, and freed when superstep s + 2 begins.
    """

    def __init__(self) -> None:
        #: File descriptors by superstep, and of the mail that the actor itself has sent where in the file the
        #: table of contents begins.
        self._open: dict[int, list[int]] = {}
        self._sent: dict[int, tuple[int, int]] = {}
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
        for earlier in [n for n in list(self._open) if n + 1 < seq]:
            self._free(earlier)

    def close(self) -> None:
        """Free all mail."""
        for seq in list(self._open):
            self._free(seq)

    def _free(self, seq: int) -> None:
        self._sent.pop(seq, None)
        for memory in self._open.pop(seq):
            os.close(memory)

    def put(self, seq: int, mail: list[Mail]) -> bytes | None:
        """Write the mail of a superstep; return bytes that unpickle to it in the processes of the machine.

        Returns None if it cannot be shared.
        """
        if not self.works:
            return None
        made = MailFile.of(mail)
        try:
            memory = self.keep(seq, made.write)
        # Another system than Linux; forbidden, too many open files, no memory, or too large a file.
        except (AttributeError, OSError):
            self.works = False
            return None
        self._sent[seq] = memory, made.contents
        return made.at(SharedFile.of(memory))

    def keep(self, seq: int, write: Callable[[BinaryIO], None]) -> int:
        """Keep what `write` writes into a new file as mail of a superstep; return the file's descriptor.

        Raises AttributeError or OSError if there is no such file, and what `write` raises.
        """
        memory = os.memfd_create("ksmcluster mail")
        try:
            # Written, not mapped: mapping and filling fresh memory takes twice as long.
            with open(memory, "wb", closefd=False) as file:
                write(file)
        except BaseException:
            os.close(memory)
            raise
        self._open.setdefault(seq, []).append(memory)
        return memory

    def take_back(self, seq: int) -> list[Mail]:
        """Return the mail that the actor sent in a superstep, which is not freed yet; [] if it sent none."""
        if seq not in self._sent:
            return []
        memory, contents = self._sent[seq]
        return _unpickled(_mapped(memory), contents)
