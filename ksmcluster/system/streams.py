"""The standard streams of a command: closed ones must not become the numbers of files that it opens."""

from __future__ import annotations

import os
import sys
from typing import IO, Any


def open_missing() -> None:
    """Open the standard streams that are closed: stdout then cannot be written, and stderr is mute."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)  # has the lowest number that is free
            assert opened == number
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class Muted:
    """A stream to which a command writes how it gets on; if it cannot be written, the command goes on."""

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
            # What is still in the buffer would fail once more when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
