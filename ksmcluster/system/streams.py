"""The standard streams of a command: files that it opens must not take the numbers of closed streams."""

from __future__ import annotations

import os
import sys
from typing import IO, Any


def open_missing() -> None:
    """Open closed standard streams: stdout then cannot be written, and stderr is discarded."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)  # gets the lowest free number
            assert opened == number
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class Muted:
    """A stream for progress; if it cannot be written, the command continues."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            # Python would flush the buffer at exit and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
