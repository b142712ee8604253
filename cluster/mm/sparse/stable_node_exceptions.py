"""What one node remembers of stable nodes that are not where a KSM frame word says.

The trees of home nodes have the stable nodes (`cluster.ksm.trees`). The nodes of pages know three
exceptions: items whose page has left the stable node's frame, stable nodes whose frames have migrated out of
their tree, and KSM frames without a stable node.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import find_unsorted
from cluster.arrays.words import Bool, Digests, FrameWords, Slots, empty, is_ksm_word, node_of_frame


def renamed(words: FrameWords, old: FrameWords, new: FrameWords) -> FrameWords:
    """Return the words with every old[i] replaced by new[i]; int64[n], int64[m], int64[m] -> int64[n]."""
    at = find_unsorted(old, words)
    return np.where(at >= 0, new[at], words) if len(old) else words


class BrokenOutItems:
    """Items that still belong to a stable node although their page was broken out of its frame.

    Copy-on-write and munmap leave the rmap_item where it is until ksmd's next visit
    (remove_rmap_item_from_tree()). `PageTable` owns it: its slots are those with the bit BROKEN_OUT.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Remove all items."""
        self._slots: Slots = empty()
        self._frames: FrameWords = empty()
        self._digests: Digests = empty(np.uint64)
        self._added: list[tuple[Slots, FrameWords, Digests]] = []

    def add(self, slots: Slots, frames: FrameWords, digests: Digests) -> None:
        """Add items, with the frames and digests that name their stable nodes."""
        if len(slots):
            self._added.append((slots, frames, digests))

    def take(self, slots: Slots) -> tuple[FrameWords, Digests]:
        """Remove the items of these slots, which must all be here, and return their stable nodes."""
        self._join()
        at = np.searchsorted(self._slots, slots)
        frames, digests = self._frames[at], self._digests[at]
        gone = np.zeros(len(self._slots), np.bool_)
        gone[at] = True
        self._remove(gone)
        return frames, digests

    def take_frames(self, frames: FrameWords) -> Slots:
        """Remove the items that belong to the stable nodes of these frames, and return their slots."""
        self._join()
        gone = np.isin(self._frames, frames)
        slots = self._slots[gone]
        self._remove(gone)
        return slots

    def slots(self) -> Slots:
        """Return the slots of all items, ascending."""
        self._join()
        return self._slots

    def frames_of(self, slots: Slots) -> FrameWords:
        """Return the frames whose stable nodes the items of these slots belong to; -1 for slots not here."""
        self._join()
        if len(self._slots) == 0:
            return np.full(len(slots), -1)
        at = np.minimum(np.searchsorted(self._slots, slots), len(self._slots) - 1)
        return np.where(self._slots[at] == slots, self._frames[at], -1)

    def rename(self, old: FrameWords, new: FrameWords) -> None:
        """Follow frames that have migrated."""
        self._join()
        self._frames = renamed(self._frames, old, new)

    def _join(self) -> None:
        """Sort in what was added."""
        if self._added:
            parts = [(self._slots, self._frames, self._digests), *self._added]
            slots, frames, digests = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(slots)
            self._slots, self._frames, self._digests = slots[order], frames[order], digests[order]
            self._added = []

    def _remove(self, gone: Bool) -> None:
        self._slots, self._frames, self._digests = (
            self._slots[~gone],
            self._frames[~gone],
            self._digests[~gone],
        )


class MigratedStableNodes:
    """KSM frames that have migrated out of the tree that has their stable node (ksm_migrate_page()).

    With merge_across_nodes=0 each node has trees for its own frames. ksmd moves a migrated stable node to the
    tree of its new node when a search or visit finds it. A frame enters in `rename`, loses its old tree in
    `unlink`, and leaves in `link`.
    """

    def __init__(self) -> None:
        #: By frame word, the node whose tree has the stable node; -1 for none.
        self._tree: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._tree)

    def among(self, frames: FrameWords) -> Bool:
        """Return which frames are here. int64[n] -> bool[n]."""
        if not self._tree:
            return np.zeros(len(frames), np.bool_)
        return np.isin(frames, list(self._tree))

    def tree_of(self, frame: int) -> int | None:
        """Return the node whose tree has the frame's stable node; -1 for none, None if it is not here."""
        return self._tree.get(frame)

    def trees_of(self, frames: FrameWords) -> FrameWords:
        """Return the nodes whose trees have the stable nodes; -1 for none, or if the frame is not here."""
        return np.array([self._tree.get(frame, -1) for frame in frames.tolist()], np.int64)

    def rename(self, old: FrameWords, new: FrameWords) -> None:
        """Replace old names of migrated frames by new ones; frames that have left their tree's node enter."""
        ksm = is_ksm_word(old)
        for was, word in zip(old[ksm].tolist(), new[ksm].tolist(), strict=True):
            tree = self._tree.pop(was, node_of_frame(was))
            if tree != node_of_frame(word):
                self._tree[word] = tree

    def unlink(self, frames: FrameWords) -> None:
        """Record that stable nodes are in no tree any more."""
        for frame in frames.tolist():
            self._tree[frame] = -1

    def link(self, frames: FrameWords) -> None:
        """Forget stable nodes that are in the trees of their frames' nodes."""
        for frame in frames.tolist():
            self._tree.pop(frame, None)

    def clear(self) -> None:
        """Forget all frames, because merge_across_nodes changes and all trees are new."""
        self._tree.clear()


class OrphanFrames:
    """KSM frames without a stable node that this node's processes map or have in swap.

    do_swap_page() must copy them (ksm_might_need_to_copy()). Words of freed frames stay: their generation
    tells them from the words of later frames.
    """

    def __init__(self) -> None:
        self._frames: set[int] = set()

    def add(self, frames: FrameWords) -> None:
        self._frames.update(frames.tolist())

    def among(self, frames: FrameWords) -> Bool:
        """Return which frames are here. int64[n] -> bool[n]."""
        return np.isin(frames, list(self._frames))

    def rename(self, old: FrameWords, new: FrameWords) -> None:
        """Follow frames that have migrated."""
        self._frames = set(renamed(np.array(sorted(self._frames), np.int64), old, new).tolist())
