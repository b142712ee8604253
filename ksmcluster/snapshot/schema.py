"""Columns of a snapshot, and the flags of its pages (docs/reference/snapshot.md)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMAT_VERSION = 2
METADATA_KEY = b"ksmcluster"
DIGEST_SIZE = 16
"""Stored bytes of the BLAKE3 digest."""
MAX_MOMENTS = 1 << 16

ZERO = 1
"""Flag: every byte of the page is zero; its digest is null."""
FILE = 2
"""Flag: page of a file or of shared memory, not an anonymous page."""
SWAPPED = 4
"""Flag: the page was in swap when it was captured."""
SHARED_ZERO = 8
"""Flag: the kernel's shared zero page was mapped here, which takes no memory."""
MERGEABLE = 16
"""Flag: a page that KSM could merge (after madvise or prctl)."""
KSM = 32
"""Flag: the page was already a KSM page (format 2)."""
WRITTEN = 64
"""Flag: the page was written since the previous moment, possibly with the same bytes (format 2)."""
SHARED = 128
"""Flag: according to the kernel, other page table entries also map this frame (format 2)."""

ROW_GROUP_ROWS = 1 << 18

UNKNOWN = -1
"""Stands for null in the arrays of frames, huge pages, mappers and nodes."""

_FIRST = [
    pa.field("moment", pa.uint16(), nullable=False),
    pa.field("process", pa.uint32(), nullable=False),
    pa.field("vpn", pa.uint64(), nullable=False),
    pa.field("digest", pa.binary(DIGEST_SIZE)),
]
SCHEMA_1 = pa.schema([*_FIRST, pa.field("flags", pa.uint8(), nullable=False)])
"""Columns of format version 1, which can still be read."""
OPTIONAL = ("frame", "outside", "huge", "node")
"""Columns of format 2, which are null where the capture does not know the value."""
SCHEMA = pa.schema(
    [
        *_FIRST,
        pa.field("flags", pa.uint16(), nullable=False),
        pa.field("frame", pa.uint32()),
        pa.field("outside", pa.uint32()),
        pa.field("huge", pa.uint32()),
        pa.field("node", pa.uint16()),
    ]
)


def content_ids(digests: NDArray[np.uint8], zero: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return the simulator's page contents: uint64[n] from digests uint8[n, 16] and zero flags bool[n].

    A content is the first 8 bytes of the digest, little-endian. Only zero pages have 0, so a
    digest that begins with eight zero bytes becomes 1.
    """
    ids = digests.view("<u8")[:, 0].astype(np.uint64)
    ids[ids == 0] = 1
    ids[zero] = 0
    return ids
