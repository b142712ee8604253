"""Raw images: holes are zero pages, and are not read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ksmcluster.capture.image import ImageSource
from ksmcluster.snapshot import MERGEABLE

PAGE = 4096
#: Longer than what is handed over at once, of a hole and of other pages.
LONG = (1 << 16) + 300


def sparse(path: Path, pages: int, *stored: int) -> Path:
    with path.open("wb") as file:
        file.truncate(pages * PAGE)
        for page in stored:
            os.pwrite(file.fileno(), bytes([page % 255 + 1]) * PAGE, page * PAGE)
    return path


@pytest.mark.parametrize("stored", [(), (0,), (700,), (0, 1, 2, 300, LONG - 1), tuple(range(600))])
def test_every_page_comes_once_in_order(tmp_path: Path, stored: tuple[int, ...]) -> None:
    source = ImageSource(sparse(tmp_path / "image", LONG, *stored))
    found, written = [], []
    for chunk in source.scan(True).chunks:
        assert (chunk.flags == MERGEABLE).all()
        found += chunk.vpn.tolist()
        if chunk.data is not None:
            words = np.frombuffer(chunk.data, np.uint8).reshape(-1, PAGE)
            written += chunk.vpn[words.any(axis=1)].tolist()
    source.close()
    assert found == list(range(LONG))
    assert written == list(stored)


def test_most_of_a_large_sparse_image_is_not_read(tmp_path: Path) -> None:
    source = ImageSource(sparse(tmp_path / "image", 1 << 24, 5, 1 << 23))
    read = sum(len(chunk.vpn) for chunk in source.scan(True).chunks if chunk.data is not None)
    source.close()
    assert 2 <= read < 1000
