"""The digests by which contents are compared: hashes of pages, or content ids themselves."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from cluster.arrays.columns import find_unsorted
from cluster.arrays.words import U8, U64
from cluster.spec.content import page_bytes


def digest_pages(pages: U8) -> U64:
    """First 64 bits of the BLAKE3 hash of each page, 0 for pages of zeros: uint64[n]."""
    raw = b"".join(blake3(page).digest(8) for page in pages)
    digests = np.frombuffer(raw, "<u8").copy()
    digests[digests == 0] = 1
    digests[~pages.any(axis=1)] = 0
    return digests


class Contents:
    """Digests of content ids and back.

    Symbolic contents are their own digests. Contents with bytes are hashed once each, when a process of
    this node first writes them.
    """

    def __init__(self, *, with_bytes: bool) -> None:
        self.with_bytes = with_bytes
        self._ids = np.empty(0, np.uint64)
        self._digests = np.empty(0, np.uint64)

    def digests(self, ids: U64) -> U64:
        if not self.with_bytes or len(ids) == 0:
            return ids
        new = np.setdiff1d(ids, self._ids)
        if len(new):
            chunks = [digest_pages(page_bytes(new[i : i + 4096])) for i in range(0, len(new), 4096)]
            at = np.searchsorted(self._ids, new)
            self._ids = np.insert(self._ids, at, new)
            self._digests = np.insert(self._digests, at, np.concatenate(chunks))
        return self._digests[np.searchsorted(self._ids, ids)]

    def ids(self, digests: U64) -> U64:
        """The ids of contents that this node has hashed."""
        if not self.with_bytes:
            return digests
        return self._ids[find_unsorted(self._digests, digests)]
