"""The pages in the unstable tree whose contents' home is one node."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in
from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import (
    HUGE_FRAME,
    I64,
    Bool,
    Digests,
    FrameWords,
    ItemKeys,
    block_of,
    is_huge_word,
)
from cluster.mm.node_state import NodeState


class UnstableTable(SortedTable):
    """Rows of pages, sorted by the digest under which ksmd inserts them; kept from pass to pass.

    Columns: the item key; the frame or, if the page is gone since ksmd inserted it in the pass under way, ~
    the number of that pass. With tree shapes there are two more: the pass in which the page changed or was
    gone, or 0, and the digest of what it holds now. Without tree shapes a page that changes loses its row.

    Which pages the kernel's tree has follows from the scan position: rows before the window are inserted in
    this pass, rows in it are visits to come, and rows behind it are not in the tree yet.
    """

    def __init__(self, node: NodeState) -> None:
        if node.tree_shape:
            super().__init__(key=np.int64, frame=np.int64, dirty=np.int32, holds=np.int64)
        else:
            super().__init__(key=np.int64, frame=np.int64)
        self._node = node

    # What nodes of pages tell.

    def on_withdraw(self, digests: Digests, keys: ItemKeys) -> None:
        """Remove pages that ksmd is to look up anew, or that are not mergeable any more."""
        rows = self.find(digests, "key", keys)
        self.remove(rows[rows >= 0])

    def on_wait_frame(self, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        """Set other frames of pages. A page that is gone (-1) blocks searches until the pass ends."""
        rows = self.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        rows = rows[there]
        inserted = self._inserted(rows)
        self["frame"][rows] = frames[there]
        self._set_dirty(rows, self._changed(rows), inserted)

    def on_wait_content(self, digests: Digests, keys: ItemKeys, holds: Digests) -> None:
        """Note what pages hold now: something else, or again what they held when they were inserted."""
        rows = self.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        rows, changed = rows[there], holds[there] != digests[there]
        if self._node.tree_shape:
            self["holds"][rows] = holds[there].view(np.int64)
            self._set_dirty(rows, self._changed(rows), self._inserted(rows))
        else:
            same = rows[np.flatnonzero(~changed)]
            self._set_dirty(same, np.zeros(len(same), np.bool_), self._inserted(same))
            self.remove(rows[np.flatnonzero(changed)])

    def split_huge(self, blocks: I64) -> None:
        """Give pages of huge pages that were split the names of small pages' frames; blocks ascend."""
        frames = self["frame"]
        huge = np.flatnonzero(is_huge_word(frames))
        huge = huge[is_in(block_of(frames[huge]), blocks)]
        frames[huge] &= ~HUGE_FRAME

    def remove_dirty_before(self, pass_number: int) -> None:
        """At the start of a pass, with shapes: remove pages that changed or were gone in an earlier one."""
        dirty = self["dirty"]
        self.remove(np.flatnonzero((dirty != 0) & (dirty < pass_number)))

    # What searches ask.

    def dirty_pass(self, rows: I64) -> I64:
        """Return the pass in which pages changed or were gone after ksmd had inserted them, or 0."""
        if not self._node.tree_shape:
            return np.maximum(~self["frame"][rows], 0)
        dirty: I64 = self["dirty"][rows]
        return dirty

    def blocks_search(self, rows: I64) -> Bool:
        """Return which pages end a search without a result: gone, or moved to another node's tree."""
        frames = self["frame"][rows]
        blocks: Bool = (frames < 0) | self._node.away(frames)
        return blocks

    def _inserted(self, rows: I64) -> Bool:
        """Return which pages ksmd has inserted in the pass under way."""
        passed = self._node.passed(self["key"][rows])
        inserted: Bool = (self.dirty_pass(rows) == self._node.window.pass_number) | passed
        return inserted

    def _changed(self, rows: I64) -> Bool:
        """Return which pages hold something else by now."""
        if not self._node.tree_shape:
            return np.zeros(len(rows), np.bool_)
        changed: Bool = self["holds"][rows] != self.digest[rows].view(np.int64)
        return changed

    def _set_dirty(self, rows: I64, changed: Bool, inserted: Bool) -> None:
        """Mark pages that changed or are gone; those that the kernel's tree does not have lose their rows."""
        current = self._node.window.pass_number
        gone = self["frame"][rows] < 0
        dirty = changed | gone
        if self._node.tree_shape:
            self["dirty"][rows] = np.where(dirty, current, 0)
        else:
            self["frame"][rows[gone]] = ~current
        self.remove(rows[dirty & ~inserted])
