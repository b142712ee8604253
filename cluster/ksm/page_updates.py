"""The messages by which trees tell other nodes what became of their pages and frames."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8, Array, Digests, FrameWords, ItemKeys, node_of_frame, node_of_key
from cluster.wire.mailbox import Outbox
from cluster.wire.messages import Kind

#: These messages go to the node of the frame in their first column.
_TO_FRAME = (Kind.MAKE_KSM, Kind.GET)
#: These go to every node, since items of a stable node may be anywhere.
_TO_ALL = (Kind.DROPPED, Kind.LANDED, Kind.UNLINKED, Kind.ORPHANED)


class PageUpdates:
    """Rows of messages, collected while a window is decided and sent once.

    A page that is looked up is marked as unstable by its own node at once. These messages correct this for
    every page that is not in the unstable tree after the window.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[Kind, tuple[Array, ...]]] = []

    def send(self, out: Outbox, nodes: int) -> None:
        """Send everything, in the order in which it was collected, in a machine of so many nodes."""
        for kind, columns in self._tables:
            first = columns[0]
            if kind in _TO_ALL:
                out.send(kind, np.repeat(np.arange(nodes), len(first)), np.tile(first, nodes))
            elif kind in _TO_FRAME:
                out.send(kind, node_of_frame(first), *columns)
            else:
                out.send(kind, node_of_key(first), *columns)

    def _add(self, kind: Kind, *columns: Array) -> None:
        if len(columns[0]):
            self._tables.append((kind, columns))

    # To the nodes of pages.

    def set_digests(self, keys: ItemKeys, digests: Digests) -> None:
        """These pages have contents of other digests by now; add this before what becomes of them."""
        self._add(Kind.REKEY, keys, digests)

    def make_stable(self, keys: ItemKeys, frames: FrameWords) -> None:
        """The frames of these pages become KSM frames with stable nodes."""
        self._add(Kind.MAKE_KSM, frames)
        self._add(Kind.STABLE, keys, frames)

    def merge(self, keys: ItemKeys, frames: FrameWords) -> None:
        """These pages map KSM frames instead of their own; tell the frames by `add_mappings`."""
        self._add(Kind.MERGE, keys, frames)

    def insert_unstable(self, keys: ItemKeys, digests: Digests) -> None:
        """These pages are in the unstable tree now."""
        self._add(Kind.WAIT, keys, digests)

    def add_to_stable(self, keys: ItemKeys, unseen: U8) -> None:
        """The items of these pages are on the stable nodes of the frames that they map anyway.

        `unseen` is 1 where checksums were not compared.
        """
        self._add(Kind.ADDED_TO_STABLE, keys, unseen)

    def remove_from_trees(self, keys: ItemKeys, seen: U8) -> None:
        """The items of these pages are in no tree; `seen` is 1 where checksums were compared."""
        self._add(Kind.REMOVED_FROM_TREES, keys, seen)

    def break_out(self, keys: ItemKeys, frames: FrameWords, digests: Digests) -> None:
        """The frames of these pages become KSM frames without stable nodes; the pages leave them again."""
        self._add(Kind.MAKE_KSM, frames)
        self._add(Kind.BREAK, keys, frames, digests)

    def map_zero(self, keys: ItemKeys) -> None:
        """These pages map the shared zero page instead of frames."""
        self._add(Kind.MAP_ZERO, keys)

    # To the nodes of frames.

    def add_mappings(self, frames: FrameWords, count: I64) -> None:
        """So many pages more map these frames."""
        self._add(Kind.GET, frames, count)

    # To all nodes.

    def drop_nodes(self, frames: FrameWords) -> None:
        """These stable nodes are gone with all their items."""
        self._add(Kind.DROPPED, frames)

    def land_nodes(self, frames: FrameWords) -> None:
        """Migrated stable nodes are in the trees of their frames' nodes again."""
        self._add(Kind.LANDED, frames)

    def unlink_nodes(self, frames: FrameWords) -> None:
        """Stable nodes whose frames have migrated are not in their old trees any more."""
        self._add(Kind.UNLINKED, frames)

    def orphan_frames(self, frames: FrameWords) -> None:
        """Stable nodes are gone whose frames are still in swap caches."""
        self._add(Kind.ORPHANED, frames)
