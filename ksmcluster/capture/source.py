"""The interface of all sources of memory."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.pagemap import Listing
from ksmcluster.snapshot import Mapping
from ksmcluster.system.errors import UserError

CHUNK_PAGES = 256
"""Pages per chunk: 1 MiB stays in the processor's cache until it is hashed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pages in ascending order: vpn uint64[n], data of n * 4096 bytes, flags uint16[n] without ZERO.

    The data is a view of a buffer that the next chunk overwrites; None means that all pages are zero.
    """

    vpn: NDArray[np.uint64]
    data: memoryview | None
    flags: NDArray[np.uint16]
    at: NDArray[np.intp] | None = None
    """Indices of the pages in the scan's listing, if it has one."""


@dataclass(frozen=True, slots=True)
class SourceScan:
    """One moment of a source: mappings, ascending and disjoint, and pages, which iterating reads."""

    mappings: tuple[Mapping, ...]
    listing: Listing | None
    """Facts about the pages before they are read; None for files."""
    chunks: Iterator[Chunk]


class Source(Protocol):
    """Memory of one process."""

    @property
    def pid(self) -> int | None:
        """PID, if known."""

    @property
    def name(self) -> str:
        """Name of the program."""

    @property
    def kind(self) -> Literal["process", "core", "image"]:
        """Kind of the source."""

    @property
    def vanished(self) -> int:
        """Number of pages so far that disappeared before they could be read."""

    def expected_pages(self, all_pages: bool) -> int:
        """Return about how many pages a scan will yield, for the progress bar."""

    def scan(self, all_pages: bool) -> SourceScan:
        """Scan the source as it is now. `all_pages` includes pages that KSM could not merge."""

    def close(self) -> None:
        """Release files."""


def page_buffer() -> memoryview:
    """Return a buffer for one chunk."""
    return memoryview(bytearray(CHUNK_PAGES * PAGE_SIZE))


def stored_pages(file: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield ascending ranges of pages, from an offset of a file on, without the file's holes."""
    position, end = offset, offset + size
    done = 0
    while position < end:
        try:
            data = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end of the file
                return
            raise
        if data >= end:
            return
        position = min(os.lseek(file, data, os.SEEK_HOLE), end)
        start = max((data - offset) // PAGE_SIZE, done)
        done = -(-(position - offset) // PAGE_SIZE)
        if start < done:
            yield start, done


def open_file(path: Path, what: str) -> int:
    """Return a descriptor of a regular file. Raises UserError if it does not exist or may not be read."""
    try:
        # Some files of procfs count as regular but block when read.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise UserError(f"{what} {path} does not exist: check the name") from error
    except PermissionError as error:
        raise UserError(f"no permission to read {what} {path}: run as root or as its owner") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {path} cannot be read ({error}): name another file") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UserError(f"{what} {path} is not a regular file")
    return file
