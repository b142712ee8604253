"""Raw memory images: page after page, without any structure."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.source import CHUNK_PAGES, Chunk, SourceScan, open_file, page_buffer
from ksmcluster.snapshot import MERGEABLE, Mapping
from ksmcluster.system.errors import UserError


class ImageSource:
    """A raw image as one pseudo-process whose page number n is the n-th page of the file.

    Raises UserError when the file is absent, unreadable, empty or not whole pages.
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
        """Pages in the file."""
        return self._pages

    def scan(self, all_pages: bool) -> SourceScan:
        """All pages of the file in one mapping."""
        return SourceScan((Mapping(0, self._pages, "rw-p", self.name, True),), None, self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        buffer = page_buffer()
        for first in range(0, self._pages, CHUNK_PAGES):
            vpn = np.arange(first, min(first + CHUNK_PAGES, self._pages), dtype=np.uint64)
            data = buffer[: len(vpn) * PAGE_SIZE]
            if os.preadv(self._file, [data], first * PAGE_SIZE) < len(data):
                raise UserError(f"image {self._path} became shorter while it was read: capture it again")
            yield Chunk(vpn, data, np.full(len(vpn), MERGEABLE, np.uint16))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
