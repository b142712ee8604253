"""The unstable trees: pages that wait for an equal one, built anew in every pass.

Source of the rules: `unstable_tree_search_insert` in `mm/ksm.c`.
"""

from __future__ import annotations

from cluster.exact.memory import Frame
from cluster.exact.nodes import RmapItem
from cluster.exact.rbtree import LEFT, RIGHT, RbTree


class UnstableTrees:
    """One unstable tree, or one a node with merge_across_nodes=0."""

    def __init__(self, nodes: int) -> None:
        self._trees: list[RbTree[RmapItem]] = [RbTree() for _ in range(nodes)]

    def reset(self) -> None:
        """Forget everything, without a word to the items."""
        self._trees = [RbTree() for _ in self._trees]

    def erase(self, item: RmapItem) -> None:
        """Take out an item that was put in during this pass."""
        self._trees[item.nid].erase(item)

    def search_insert(
        self, item: RmapItem, frame: Frame, nid: int, one_tree: bool
    ) -> tuple[RmapItem | None, bool]:
        """Look for a page equal to `frame`, else put its item in.

        Returns the item of the equal page, and whether `item` was put in. Neither happens if the search
        meets a page that is gone, the very same frame, or an equal one that has left for another node.
        """
        tree = self._trees[nid]
        parent: RmapItem | None = None
        side = LEFT
        other = tree.root
        while other is not None:
            found = mergeable_frame(other)
            if found is None or found is frame:
                return None, False
            if frame.key == found.key:
                return (other, False) if one_tree or found.node == nid else (None, False)
            # found's content may have changed since it was put in: then this way may be the wrong one
            side = LEFT if frame.key < found.key else RIGHT
            parent, other = other, tree.child(other, side)
        item.nid = nid
        tree.insert(item, parent, side)
        return None, True


def mergeable_frame(item: RmapItem) -> Frame | None:
    """The anonymous page at an item's address now, if it still may be merged (get_mergeable_page)."""
    region, index = item.region, item.index
    if not region.mm.alive or not region.mergeable[index]:
        return None
    pte = region.pte[index]
    return pte if isinstance(pte, Frame) else None
