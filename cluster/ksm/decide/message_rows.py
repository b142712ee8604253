"""Messages about single pages, collected over the contents that `sequential` decides."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.words import I64, Digests, FrameWords, ItemKeys
from cluster.ksm.page_updates import PageUpdates

_Triples = list[tuple[int, int, int]]


@dataclass(slots=True)
class MessageRows:
    """Rows by what they say; `PageUpdates` has a method for each."""

    #: Whether the positions at which stable nodes are dropped matter.
    with_positions: bool
    #: Scan position of the visit that is being decided.
    position: int = 0
    #: Item key, KSM frame, digest.
    made_stable: _Triples = field(default_factory=list)
    merged: _Triples = field(default_factory=list)
    broken_out: _Triples = field(default_factory=list)
    #: Item key; 1 if its checksum was not compared.
    added_to_stable: list[tuple[int, int]] = field(default_factory=list)
    #: Item key; 1 if its checksum was compared.
    removed_from_trees: list[tuple[int, int]] = field(default_factory=list)
    #: Item keys.
    mapped_zero: list[int] = field(default_factory=list)
    #: KSM frame, scan position.
    dropped: list[tuple[int, int]] = field(default_factory=list)
    #: KSM frames.
    unlinked: list[int] = field(default_factory=list)
    linked: list[int] = field(default_factory=list)

    def add_to(self, updates: PageUpdates) -> None:
        """Add all rows to the messages."""
        keys, frames, digests = _columns(self.made_stable)
        updates.set_digests(keys, digests)
        updates.make_stable(keys, frames)
        keys, frames, digests = _columns(self.merged)
        updates.set_digests(keys, digests)
        updates.merge(keys, frames)
        updates.add_mappings(frames, np.ones(len(frames), np.int64))
        updates.break_out(*_columns(self.broken_out))
        added = np.array(self.added_to_stable, np.int64).reshape(-1, 2)
        updates.add_to_stable(added[:, 0], added[:, 1].astype(np.uint8))
        removed = np.array(self.removed_from_trees, np.int64).reshape(-1, 2)
        updates.remove_from_trees(removed[:, 0], removed[:, 1].astype(np.uint8))
        updates.map_zero(np.array(self.mapped_zero, np.int64))
        dropped = np.array(self.dropped, np.int64).reshape(-1, 2)
        updates.drop_nodes(dropped[:, 0], dropped[:, 1] if self.with_positions else None)
        updates.unlink_nodes(np.array(self.unlinked, np.int64))
        updates.link_nodes(np.array(self.linked, np.int64))


def _columns(rows: _Triples) -> tuple[ItemKeys, FrameWords, Digests]:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    key: I64 = table[:, 0].astype(np.int64)
    return key, table[:, 1].astype(np.int64), table[:, 2]
