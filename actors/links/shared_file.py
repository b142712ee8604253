"""A file in memory of one process (memfd_create(2)) that others of its machine open.

They open it below /proc/PID of its owner. A sandbox or a namespace of its own may forbid that, or lead to
another file, so they check what they open.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


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

    def read(self, how: Callable[[int], T]) -> T:
        """Open a file of another actor, and return what `how` reads from its descriptor.

        Raises UnreadableMailError if that fails, or if it is another file.
        """
        try:
            # Before it is opened: to open a pipe may take forever, and to open a device may start something.
            check(_identity(os.stat(self.path)) == self.identity)  # noqa: PTH116 (that of Path takes longer)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                check(_identity(os.fstat(descriptor)) == self.identity)
                return how(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise UnreadableMailError(str(error)) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and the inode of a file."""
    return status.st_dev, status.st_ino


def check(same: bool) -> None:
    """Raise UnreadableMailError unless a file is the one that it should be."""
    if not same:
        raise UnreadableMailError("another file than the sender's")


def mapped(descriptor: int) -> memoryview:
    """Map a file, to be read."""
    return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
