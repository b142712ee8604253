"""The contents of a snapshot in memcmp order, the order of ksmd's trees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.spec.captured_pages import ORDER_STEP
from cluster.spec.content import PAGE_SIZE

ORDER_KEY = b"ksmcluster-order"
"""Key of the file's metadata: contents (`content_ids`) as uint64, little-endian, ascending by memcmp."""

_WORDS = PAGE_SIZE // 8
_KEPT = 8
"""Number of words compared, from the first nonzero word on; after that, digests decide."""
_KEY = np.dtype([("content", np.uint64), ("zeros", np.uint16), ("words", np.uint64, (_KEPT,))])
_COMPACT = 1 << 18


class ContentOrder:
    """Collects contents and the first words of their pages, 74 bytes each; the words stay private."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.void]] = []
        self._rows = 0
        self._limit = _COMPACT

    def add(self, contents: NDArray[np.uint64], pages: memoryview) -> None:
        """Add pages: uint64[n], and n * 4096 bytes. Zero pages (content 0) are skipped."""
        words = np.frombuffer(pages, ">u8").reshape(-1, _WORDS)
        rows = np.flatnonzero(contents)
        first = _first_words(words, rows)
        keys = np.zeros(len(rows), _KEY)
        keys["content"], keys["zeros"] = contents[rows], first
        for number in range(_KEPT):
            at = first + number
            inside = np.flatnonzero(at < _WORDS)
            keys["words"][inside, number] = words[rows[inside], at[inside]]
        self._parts.append(keys)
        self._rows += len(keys)
        if self._rows > self._limit:
            self._compact()
            self._limit = 2 * self._rows + _COMPACT

    def _compact(self) -> NDArray[np.void]:
        keys = np.concatenate([np.zeros(0, _KEY), *self._parts])
        keys = keys[np.unique(keys["content"], return_index=True)[1]]
        self._parts, self._rows = [keys], len(keys)
        return keys

    def contents(self) -> NDArray[np.uint64]:
        """Return the added contents, uint64[n], in ascending memcmp order."""
        keys = self._compact()
        words = [keys["words"][:, number] for number in reversed(range(_KEPT))]
        order = np.lexsort((keys["content"], *words, -keys["zeros"].astype(np.int64)))
        found: NDArray[np.uint64] = keys["content"][order]
        return found


def _first_words(words: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first nonzero word of each page; few pages begin with many zeros."""
    first = np.zeros(len(rows), np.int64)
    zero = np.flatnonzero(words[rows, 0] == 0)
    first[zero] = (words[rows[zero]] != 0).argmax(axis=1)
    return first


def numbered(contents: NDArray[np.uint64], order: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Number contents by the order; 0 and contents that are not in it stay: uint64[n]."""
    if len(order) == 0:
        return contents
    by_content = np.argsort(order)
    at = np.minimum(np.searchsorted(order, contents, sorter=by_content), len(order) - 1)
    places = by_content[at]
    number = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(ORDER_STEP)
    return np.where(order[places] == contents, number, contents)
