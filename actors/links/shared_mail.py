"""Mail between actors of one machine, in memory of one of them that the others open.

Ray's object store does the same, at a millisecond an object. Here the mail of a superstep to all actors of a
machine is one file in memory, which is freed when no process has it open or mapped. It belongs to the sender
or, if this is on another machine, to one of the receivers (`actors.links.far_mail`).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import BinaryIO

from actors.links.mail_file import Layout, MailFile, columns_file
from actors.links.shared_file import SharedFile, UnreadableMailError, mapped
from cluster.wire.mailbox import Mail
from cluster.wire.parcels import Parcel


def read_mail(pickled: Mapping[int, bytes]) -> tuple[list[Mail], list[Parcel], list[int]]:
    """Unpickle the mail of each sender; return mail, parcels, and the senders whose mail cannot be read."""
    mail: list[Mail] = []
    parcels: list[Parcel] = []
    unreadable = []
    for sender, packed in pickled.items():
        try:
            read = pickle.loads(packed)
        except UnreadableMailError:
            unreadable.append(sender)
        else:
            if isinstance(read, Parcel):
                parcels.append(read)
            else:
                mail += read
    return mail, parcels, unreadable


class SharedMail:
    """The mail that one actor shares with the actors of its machine.

    Mail of superstep s is read during superstep s + 1, and freed when superstep s + 2 begins.
    """

    def __init__(self) -> None:
        #: File descriptors by superstep, and the layout of the mail that the actor itself has sent.
        self._open: dict[int, list[int]] = {}
        self._sent: dict[int, tuple[int, Layout]] = {}
        #: Whether mail can be shared. Once it fails, it is not tried again.
        self.works = True
        self.works = self._can_read_back()

    def _can_read_back(self) -> bool:
        probe = self.put(0, columns_file([], [0]))
        try:
            return bool(probe) and pickle.loads(probe[0]) == []
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

    def put(self, seq: int, made: MailFile) -> dict[int, bytes]:
        """Write the mail of a superstep; return for each receiver bytes that unpickle to it on the machine.

        Returns nothing if it cannot be shared.
        """
        if not self.works:
            return {}
        try:
            memory = self.keep(seq, made.write)
        # Another system than Linux; forbidden, too many open files, no memory, or too large a file.
        except (AttributeError, OSError):
            self.works = False
            return {}
        self._sent[seq] = memory, made.layout
        return made.layout.locations(SharedFile.of(memory))

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
        memory, layout = self._sent[seq]
        return layout.read_back(mapped(memory))
