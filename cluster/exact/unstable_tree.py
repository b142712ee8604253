"""The unstable trees: pages that wait for an equal one. Every pass builds them anew.

Source of the rules: `unstable_tree_search_insert` in `mm/ksm.c`.
"""

from __future__ import annotations

from cluster.arrays.rbtree import LEFT, RIGHT, RbTree
from cluster.exact.objects import Frame, RmapItem
from cluster.exact.reason import Reason

#: What a search ends with: the item of the equal page, and whether the searched item was inserted.
SearchOutcome = tuple[RmapItem | None, bool]


class UnstableTrees:
    """One unstable tree or, with merge_across_nodes=0, one for each node."""

    def __init__(self, nodes: int, reasons: set[Reason]) -> None:
        """Start with empty trees. `reasons` gets CHANGED_UNSTABLE if a search depends on the shape."""
        self._nodes = nodes
        self._reasons = reasons
        self.reset()

    def reset(self) -> None:
        """Empty the trees, without changing the items."""
        self._trees: list[RbTree[RmapItem]] = [RbTree() for _ in range(self._nodes)]
        #: the last item inserted with each content
        self._last_inserted: list[dict[int, RmapItem]] = [{} for _ in range(self._nodes)]

    def erase(self, item: RmapItem) -> None:
        """Remove an item that was inserted during this pass."""
        self._trees[item.nid].erase(item)
        if self._last_inserted[item.nid].get(item.inserted_key) is item:
            del self._last_inserted[item.nid][item.inserted_key]

    def search_insert(self, item: RmapItem, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
        """Search for a page equal to `frame`; insert `item` if there is none.

        Return the item of the equal page, and whether `item` was inserted. Return None and False if the
        search meets a page that is gone, `frame` itself, or an equal page that migrated to another node.
        """
        expected = self._expect(frame, nid, one_tree)
        outcome = self._descend(item, frame, nid, one_tree)
        if outcome != expected:
            self._reasons.add(Reason.CHANGED_UNSTABLE)
        if outcome[1]:
            item.nid = nid
            item.inserted_key = frame.key
            self._last_inserted[nid][frame.key] = item
        return outcome

    def _expect(self, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
        """Return what the search ends with if it meets only the page inserted last with this content."""
        other = self._last_inserted[nid].get(frame.key)
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
            # the content may have changed since the insertion: then this may be the wrong way
            side = LEFT if frame.key < found.key else RIGHT
            parent, other = other, tree.child(other, side)
        tree.insert(item, parent, side)
        return None, True


def _end(other: RmapItem, found: Frame | None, frame: Frame, nid: int, one_tree: bool) -> SearchOutcome:
    """Return what a search ends with at a page that is gone, the frame itself, or an equal page."""
    if found is None or found is frame:
        return None, False
    return (other, False) if one_tree or found.node == nid else (None, False)


def mergeable_frame(item: RmapItem) -> Frame | None:
    """Return the page at an item's address now, if it still may be merged (get_mergeable_page)."""
    region, index = item.region, item.index
    if not region.mm.alive or not region.mergeable[index]:
        return None
    pte = region.pte[index]
    return pte if isinstance(pte, Frame) else None
