"""The digests that stand for contents: hashes of pages, or content ids themselves."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from cluster.arrays.columns import find_unsorted
from cluster.arrays.words import U8, U64, Digests
from cluster.spec.content import page_bytes

#: Pages whose bytes are made and hashed together: 16 MiB.
_AT_ONCE = 4096


def digest_pages(pages: U8) -> Digests:
    """Return the first 64 bits of the BLAKE3 hash of each page: uint8[n, 4096] -> uint64[n].

    The digest of a page of zeros is 0, and no other page has digest 0.
    """
    raw = b"".join(blake3(page).digest(8) for page in pages)
    digests = np.frombuffer(raw, "<u8").copy()
    digests[digests == 0] = 1
    digests[~pages.any(axis=1)] = 0
    return digests


class Contents:
    """Translate content ids to digests and back, for one node.

    Without bytes, a content id is its own digest. With bytes, each content is hashed once, when a process of
    the node first writes it.
    """

    def __init__(self, *, with_bytes: bool) -> None:
        self.with_bytes = with_bytes
        self._ids = np.empty(0, np.uint64)
        self._digests = np.empty(0, np.uint64)

    def digests(self, ids: U64) -> Digests:
        """Return the digest of each content id, and remember it: uint64[n] -> uint64[n]."""
        if not self.with_bytes or len(ids) == 0:
            return ids
        new = np.setdiff1d(ids, self._ids)
        if len(new):
            chunks = [digest_pages(page_bytes(new[i : i + _AT_ONCE])) for i in range(0, len(new), _AT_ONCE)]
            at = np.searchsorted(self._ids, new)
            self._ids = np.insert(self._ids, at, new)
            self._digests = np.insert(self._digests, at, np.concatenate(chunks))
        return self._digests[np.searchsorted(self._ids, ids)]

    def ids(self, digests: Digests) -> U64:
        """Return the content id of each digest; this node must have hashed it: uint64[n] -> uint64[n]."""
        if not self.with_bytes:
            return digests
        return self._ids[find_unsorted(self._digests, digests)]
