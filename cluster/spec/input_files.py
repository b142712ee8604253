"""Reading files that users name: regular files alone, and no more of them than a limit."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def read_input(path: Path, most: int) -> bytes:
    """Return the contents of a file.

    Raises OSError, whose strerror says what is wrong, also if it is no regular file or has more than `most`
    bytes. A pipe, a socket or a device is never waited for.
    """
    with open_input(path, most) as opened:
        data: bytes | None = opened.read(most + 1)
    if data is None:  # a file in /proc that is waited for
        raise OSError(errno.ENOTSUP, "not a regular file", str(path))
    if len(data) > most:  # as of files in /proc, or one that grows
        raise OSError(errno.EFBIG, f"too large; {most:,} bytes at most", str(path))
    return data


@contextmanager
def open_input(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open a file to be read in parts. Raises OSError as `read_input` does."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "Invalid argument", str(path))
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENOTSUP, "not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes are too many; {most:,} at most", str(path))
        with os.fdopen(file, "rb", closefd=False) as opened:
            yield opened
    finally:
        os.close(file)
