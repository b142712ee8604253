"""The pages in the unstable tree whose contents' home is one node."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in, is_in_runs, order_by
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
from cluster.wire.messages import Kind


class UnstableTable(SortedTable):
    """Rows of pages, sorted by the digest under which ksmd inserts them; kept from pass to pass.

    Columns: the item key; the frame or, if the page is gone since ksmd inserted it in the pass under way, ~
    the number of that pass. With tree shapes there are two more: the pass in which the page changed or was
    gone, or 0, and the digest of what it holds now. Without tree shapes a page that changes loses its row,
    but gets it back if it holds the same again before another page is inserted.

    Which pages the kernel's tree has follows from the scan position: rows before the window are inserted in
    this pass, rows in it are visits to come, and rows behind it are not in the tree yet.
    """

    def __init__(self, node: NodeState) -> None:
        if node.tree_shape:
            super().__init__(key=np.int64, frame=np.int64, dirty=np.int32, holds=np.int64)
        else:
            super().__init__(key=np.int64, frame=np.int64)
        self._node = node
        #: Without tree shapes: rows of pages that ksmd has inserted in the pass under way, and that hold
        #: something else now: `zero` is 1 if that is zeros.
        self.lost = SortedTable(key=np.int64, frame=np.int64, zero=np.int8)

    # What nodes of pages tell.

    def on_withdraw(self, digests: Digests, keys: ItemKeys) -> None:
        """Remove pages that ksmd is to look up anew, or that are not mergeable any more."""
        for table in (self, self.lost) if len(self.lost) else (self,):
            rows = table.find(digests, "key", keys)
            table.remove(rows[rows >= 0])

    def on_wait_frame(self, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        """Set other frames of pages. A page that is gone (-1) blocks searches until the pass ends."""
        rows = self.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        rows = rows[there]
        inserted = self._inserted(rows)
        self["frame"][rows] = frames[there]
        self._set_dirty(rows, self._changed(rows), inserted)
        if len(self.lost):
            rows = self.lost.find(digests, "key", keys)
            there = np.flatnonzero(rows >= 0)
            gone = frames[there] < 0
            self.lost["frame"][rows[there]] = np.where(gone, ~self._node.window.pass_number, frames[there])
            self._give_back(rows[there[gone]])

    def on_wait_content(self, digests: Digests, keys: ItemKeys, holds: Digests) -> None:
        """Note what pages hold now: something else, or again what they held when they were inserted."""
        found = self.find(digests, "key", keys)
        there = np.flatnonzero(found >= 0)
        rows, changed = found[there], holds[there] != digests[there]
        if self._node.tree_shape:
            self["holds"][rows] = holds[there].view(np.int64)
            self._set_dirty(rows, self._changed(rows), self._inserted(rows))
        else:
            same = rows[np.flatnonzero(~changed)]
            self._set_dirty(same, np.zeros(len(same), np.bool_), self._inserted(same))
            self._lose(rows[np.flatnonzero(changed)], holds[there[changed]] == 0)
            # Last, as it inserts rows.
            if len(self.lost) and len(there) < len(digests):
                lost = np.flatnonzero(found < 0)
                self._still_lost(digests[lost], keys[lost], holds[lost])

    def split_huge(self, blocks: I64) -> None:
        """Give pages of huge pages that were split the names of small pages' frames; blocks ascend."""
        for frames in (self["frame"], self.lost["frame"]):
            huge = np.flatnonzero(is_huge_word(frames))
            # Many rows are in no order: to sort their blocks takes less time than to search for each.
            order, ascending = order_by(block_of(frames[huge]).view(np.uint64))
            frames[huge[order[is_in_runs(ascending.view(np.int64), blocks)]]] &= ~HUGE_FRAME

    def on_rehome(self, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        """Take rows of pages from another node."""
        order = np.argsort(digests)
        self.insert(digests[order], key=keys[order], frame=frames[order])

    def change_trees(self) -> None:
        """Send what searches find after a change of merge_across_nodes to the nodes that they ask now.

        One tree serves all nodes, or node 0; it has what ksmd has inserted in it in the pass under way.
        """
        n = self._node
        self.forget_lost()
        if n.nodes == 1 or n.tree_shape:
            return
        rows = np.flatnonzero(self._inserted(np.arange(len(self))))
        if n.id == 0 or not n.knobs.merge_across_nodes:
            digests, frames = self.digest[rows], self["frame"][rows]
            homes = n.home_of_frames(digests, frames) if n.knobs.merge_across_nodes else np.zeros_like(rows)
            n.out.send(Kind.REHOME, homes, digests, self["key"][rows], frames)
        self.remove(rows)

    # Pages that hold something else for a while.

    def lost_zeros(self, digests: Digests) -> I64:
        """Return the row in `lost` of a page of each content that holds zeros, in a huge page; -1 for none.

        Searches do not meet it until the split of the huge page has taken it away: then it blocks them.
        """
        found = np.full(len(digests), -1)
        if len(self.lost):
            which, rows = self.lost.rows(digests)
            zero = (self.lost["zero"][rows] == 1) & is_huge_word(self.lost["frame"][rows])
            found[which[zero]] = rows[zero]
        return found

    def _lose(self, rows: I64, zero: Bool) -> None:
        """Remove pages that hold something else, and remember those that the kernel's tree has."""
        inserted = np.flatnonzero(self._inserted(rows))
        if len(inserted):
            # One number for both is quicker to sort.
            kept = np.sort((rows[inserted] << 1) | zero[inserted])
            kept, holds_zeros = kept >> 1, kept & 1
            about = {name: self[name][kept] for name in self.columns}
            self.lost.insert(self.digest[kept], **about, zero=holds_zeros)
        self.remove(rows)

    def _still_lost(self, digests: Digests, keys: ItemKeys, holds: Digests) -> None:
        """Note what lost pages hold now; those that hold the same again are not lost."""
        rows = self.lost.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        self.lost["zero"][rows[there]] = holds[there] == 0
        self._give_back(rows[there[holds[there] == digests[there]]])

    def _give_back(self, rows: I64) -> None:
        """Insert pages again that were lost, if searches would meet them."""
        if len(rows) == 0:
            return
        rows = np.sort(rows)
        digests, about = self.lost.digest[rows], {name: self.lost[name][rows] for name in self.columns}
        self.lost.remove(rows)
        which, others = self.rows(digests)
        met = self._node.passed(about["key"])
        met[which[self._inserted(others)]] = False
        self.insert(digests[met], **{name: column[met] for name, column in about.items()})

    def forget_lost(self, instead: list[Digests] | None = None) -> None:
        """Forget pages that hold something else: all, or those of contents of which others were inserted."""
        lost = self.lost.digest
        gone = np.full(len(lost), instead is None)
        for digests in instead or ():
            gone |= is_in(lost, np.sort(digests))
        self.lost.remove(np.flatnonzero(gone))

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
