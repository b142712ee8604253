"""The unstable trees: pages that wait for an equal one, built anew in every pass.

Source of the rules: `unstable_tree_search_insert` in `mm/ksm.c`.
"""

from __future__ import annotations

from cluster.arrays.rbtree import LEFT, RIGHT, RbTree
from cluster.exact.objects import Frame, RmapItem
from cluster.exact.reason import Reason

#: What a search ends with: the item of the equal page, and whether the item looked for was put in.
SearchOutcome = tuple[RmapItem | None, bool]


class UnstableTrees:
    """One unstable tree, or one a node with merge_across_nodes=0."""

    def __init__(self, nodes: int, reasons: set[Reason]) -> None:
        """`reasons` takes note if a search ends otherwise than it would in a tree without shape."""
        self._nodes = nodes
        self._reasons = reasons
        self.reset()

    def reset(self) -> None:
        """Forget everything, without a word to the items."""
        self._trees: list[RbTree[RmapItem]] = [RbTree() for _ in range(self._nodes)]
        #: by the content it was put in with: the last item put in
        self._put_in: list[dict[int, RmapItem]] = [{} for _ in range(self._nodes)]

    def erase(self, item: RmapItem) -> None:
        """Take out an item that was put in during this pass."""
        self._trees[item.nid].erase(item)
        if self._put_in[item.nid].get(item.put_in_as) is item:
            del self._put_in[item.nid][item.put_in_as]

    def search_insert(self, item: RmapItem, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
        """Look for a page equal to `frame`, else put its item in.

        Returns the item of the equal page, and whether `item` was put in. Neither happens if the search
        meets a page that is gone, the very same frame, or an equal one that has left for another node.
        """
        expected = self._lookup(frame, nid, one_tree)
        outcome = self._descend(item, frame, nid, one_tree)
        if outcome != expected:
            self._reasons.add(Reason.CHANGED_UNSTABLE)
        if outcome[1]:
            item.nid = nid
            item.put_in_as = frame.key
            self._put_in[nid][frame.key] = item
        return outcome

    def _lookup(self, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
        """What the search ends with if it meets only the page that was put in with the content looked for."""
        other = self._put_in[nid].get(frame.key)
        if other is None:
            return None, True
        found = mergeable_frame(other)
        if found is not None and found is not frame and found.key != frame.key:
            return None, True
        return _end(other, found, frame, nid, one_tree)

    def _descend(self, item: RmapItem, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
        tree = self._trees[nid]
        parent: RmapItem | None = None
        side = LEFT
        other = tree.root
        while other is not None:
            found = mergeable_frame(other)
            if found is None or found is frame or found.key == frame.key:
                return _end(other, found, frame, nid, one_tree)
            # found's content may have changed since it was put in: then this way may be the wrong one
            side = LEFT if frame.key < found.key else RIGHT
            parent, other = other, tree.child(other, side)
        tree.insert(item, parent, side)
        return None, True


def _end(other: RmapItem, found: Frame | None, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
    """What a search ends with at a page that is gone, the very same one, or an equal one."""
    if found is None or found is frame:
        return None, False
    return (other, False) if one_tree or found.node == nid else (None, False)


def mergeable_frame(item: RmapItem) -> Frame | None:
    """The anonymous page at an item's address now, if it still may be merged (get_mergeable_page)."""
    region, index = item.region, item.index
    if not region.mm.alive or not region.mergeable[index]:
        return None
    pte = region.pte[index]
    return pte if isinstance(pte, Frame) else None
