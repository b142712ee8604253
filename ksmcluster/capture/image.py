"""Raw memory images: page after page, without any structure."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.source import CHUNK_PAGES, Chunk, SourceScan, open_file, page_buffer, stored_pages
from ksmcluster.snapshot import MERGEABLE, Mapping
from ksmcluster.system.errors import UserError

#: Pages of a hole per chunk.
_HOLE_PAGES = 1 << 16


def _chunk(first: int, last: int, data: memoryview | None) -> Chunk:
    vpn = np.arange(first, last, dtype=np.uint64)
    return Chunk(vpn, data, np.full(len(vpn), MERGEABLE, np.uint16))


class ImageSource:
    """A raw image as one pseudo-process whose page number n is the n-th page of the file.

    Raises UserError if the file is absent, unreadable, empty, or does not consist of whole pages.
    """

    pid = None
    kind: Literal["image"] = "image"
    vanished = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self._file = open_file(path, "image")
        size = os.fstat(self._file).st_size
        self._pages = size // PAGE_SIZE
        if size == 0 or size % PAGE_SIZE:
            self.close()
            raise UserError(
                f"image {path} has {size} bytes, which is not a positive multiple of {PAGE_SIZE}: "
                "give a whole raw memory image"
            )

    def expected_pages(self, all_pages: bool) -> int:
        """Return the number of pages in the file."""
        return self._pages

    def scan(self, all_pages: bool) -> SourceScan:
        """Return all pages of the file, in one mapping."""
        return SourceScan((Mapping(0, self._pages, "rw-p", self.name, True),), None, self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        done = 0
        for start, end in stored_pages(self._file, 0, self._pages * PAGE_SIZE):
            yield from self._zeros(done, start)
            yield from self._stored(start, end)
            done = end
        yield from self._zeros(done, self._pages)

    def _zeros(self, start: int, end: int) -> Iterator[Chunk]:
        """Yield the pages of a hole, which need not be read."""
        for first in range(start, end, _HOLE_PAGES):
            yield _chunk(first, min(first + _HOLE_PAGES, end), None)

    def _stored(self, start: int, end: int) -> Iterator[Chunk]:
        buffer = page_buffer()
        for first in range(start, end, CHUNK_PAGES):
            last = min(first + CHUNK_PAGES, end)
            data = buffer[: (last - first) * PAGE_SIZE]
            if os.preadv(self._file, [data], first * PAGE_SIZE) < len(data):
                raise UserError(f"image {self._path} shrank while it was read: capture it again")
            yield _chunk(first, last, data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
