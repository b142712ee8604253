"""The snapshot file: captured memory as Parquet, with a row per page (docs/reference/snapshot.md).

`SnapshotWriter` writes it as a stream for `ksmcluster.capture`; `Snapshot` reads it; `load` converts it for
the simulated machine. Imports `cluster` and the report's text. Does not use /proc.
"""

from ksmcluster.snapshot.metadata import (
    HostInfo,
    KeyInfo,
    Mapping,
    Metadata,
    Note,
    NumaNode,
    SnapshotProcess,
    cover,
)
from ksmcluster.snapshot.order import ContentOrder
from ksmcluster.snapshot.reader import Snapshot, SnapshotPages, is_snapshot
from ksmcluster.snapshot.schema import (
    DIGEST_SIZE,
    FILE,
    FORMAT_VERSION,
    KSM,
    MAX_MOMENTS,
    MERGEABLE,
    SHARED,
    SHARED_ZERO,
    SWAPPED,
    UNKNOWN,
    WRITTEN,
    ZERO,
    content_ids,
)
from ksmcluster.snapshot.writer import PageRows, SnapshotWriter

__all__ = [
    "DIGEST_SIZE",
    "FILE",
    "FORMAT_VERSION",
    "KSM",
    "MAX_MOMENTS",
    "MERGEABLE",
    "SHARED",
    "SHARED_ZERO",
    "SWAPPED",
    "UNKNOWN",
    "WRITTEN",
    "ZERO",
    "ContentOrder",
    "HostInfo",
    "KeyInfo",
    "Mapping",
    "Metadata",
    "Note",
    "NumaNode",
    "PageRows",
    "Snapshot",
    "SnapshotPages",
    "SnapshotProcess",
    "SnapshotWriter",
    "content_ids",
    "cover",
    "is_snapshot",
]
