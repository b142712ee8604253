"""The messages by which trees tell other nodes what became of their pages and frames."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8, Array, Digests, FrameWords, ItemKeys, node_of_frame, node_of_key
from cluster.wire.mailbox import Outbox
from cluster.wire.messages import Kind

#: These messages go to the node of the frame in their first column.
_TO_FRAME = (Kind.MAKE_KSM, Kind.GET)
#: These go to every node, since items of a stable node may be anywhere.
_TO_ALL = (Kind.DROPPED, Kind.DROPPED_AT, Kind.LINKED, Kind.UNLINKED, Kind.ORPHANED)


class PageUpdates:
    """Rows of messages, collected while a window is decided and sent once.

    A page that is looked up is marked as unstable by its own node at once. These messages correct this for
    every page that is not in the unstable tree after the window.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[Kind, tuple[Array, ...]]] = []

    def copy(self) -> PageUpdates:
        """Return the same messages, to which others can be added."""
        other = PageUpdates()
        other._tables = list(self._tables)
        return other

    def send(self, out: Outbox, nodes: int) -> None:
        """Send all messages in the order in which they were added; the machine has `nodes` nodes."""
        for kind, columns in self._tables:
            first = columns[0]
            if kind in _TO_ALL:
                to = np.repeat(np.arange(nodes), len(first))
                out.send(kind, to, *(np.tile(column, nodes) for column in columns))
            elif kind in _TO_FRAME:
                out.send(kind, node_of_frame(first), *columns)
            else:
                out.send(kind, node_of_key(first), *columns)

    def _add(self, kind: Kind, *columns: Array) -> None:
        if len(columns[0]):
            self._tables.append((kind, columns))

    # To the nodes of pages.

    def set_digests(self, keys: ItemKeys, digests: Digests) -> None:
        """Queue REKEY for these pages; queue it before the messages that merge them."""
        self._add(Kind.REKEY, keys, digests)

    def make_stable(self, keys: ItemKeys, frames: FrameWords) -> None:
        """Queue MAKE_KSM for these frames, and STABLE for the pages that map them."""
        self._add(Kind.MAKE_KSM, frames)
        self._add(Kind.STABLE, keys, frames)

    def merge(self, keys: ItemKeys, frames: FrameWords) -> None:
        """Queue MERGE for these pages; queue GET for the frames by `add_mappings`."""
        self._add(Kind.MERGE, keys, frames)

    def insert_unstable(self, keys: ItemKeys, digests: Digests) -> None:
        """Queue WAIT for these pages, which are in the unstable tree."""
        self._add(Kind.WAIT, keys, digests)

    def add_to_stable(self, keys: ItemKeys, checksum_skipped: U8) -> None:
        """Queue ADDED_TO_STABLE for these pages, whose items join the stable nodes of the mapped frames.

        `checksum_skipped` is 1 where checksums were not compared.
        """
        self._add(Kind.ADDED_TO_STABLE, keys, checksum_skipped)

    def remove_from_trees(self, keys: ItemKeys, checksum_compared: U8) -> None:
        """Queue REMOVED_FROM_TREES for these pages.

        `checksum_compared` is 1 where checksums were compared.
        """
        self._add(Kind.REMOVED_FROM_TREES, keys, checksum_compared)

    def break_out(self, keys: ItemKeys, frames: FrameWords, digests: Digests) -> None:
        """Queue MAKE_KSM for these frames, and BREAK for the pages that map them.

        The KSM frames have no stable nodes; the pages leave them at once.
        """
        self._add(Kind.MAKE_KSM, frames)
        self._add(Kind.BREAK, keys, frames, digests)

    def map_zero(self, keys: ItemKeys) -> None:
        """Queue MAP_ZERO for these pages."""
        self._add(Kind.MAP_ZERO, keys)

    # To the nodes of frames.

    def add_mappings(self, frames: FrameWords, count: I64) -> None:
        """Queue GET: `count` more pages map each of these frames. int64[n], int64[n]."""
        self._add(Kind.GET, frames, count)

    # To all nodes.

    def drop_nodes(self, frames: FrameWords, positions: I64 | None) -> None:
        """Queue DROPPED for the stable nodes of these frames, which are gone with all their items.

        Queue DROPPED_AT, too, if there are `positions`: those at which the scan removed the nodes.
        """
        self._add(Kind.DROPPED, frames)
        if positions is not None:
            self._add(Kind.DROPPED_AT, frames, positions)

    def link_nodes(self, frames: FrameWords) -> None:
        """Queue LINKED for migrated stable nodes that are in the trees of their frames' nodes."""
        self._add(Kind.LINKED, frames)

    def unlink_nodes(self, frames: FrameWords) -> None:
        """Queue UNLINKED for migrated stable nodes that have left their old trees."""
        self._add(Kind.UNLINKED, frames)

    def orphan_frames(self, frames: FrameWords) -> None:
        """Queue ORPHANED for KSM frames in swap caches whose stable nodes are gone."""
        self._add(Kind.ORPHANED, frames)
