"""A red-black tree that takes the same shape as the kernel's (`lib/rbtree.c`) under the same operations.

The shape matters: ksmd searches its unstable tree by what pages hold now, but the place of a page was chosen
by what it held when it was inserted. So which pages a search meets depends on every rotation before it.
The tree does not compare nodes. Its users walk down, and insert a node where tsuccessor walk ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

LEFT, RIGHT = 0, 1


class RbNode:
    """Base class of the nodes of a tree. A node is in at most one tree at a time."""

    __slots__ = ("child", "parent", "red")

    def __init__(self) -> None:
        self.parent: RbNode | None = None
        self.child: list[RbNode | None] = [None, None]
        self.red = False


N = TypeVar("N", bound=RbNode)


class RbTree(Generic[N]):
    """A tree of nodes of one class."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: RbNode | None = None

    @property
    def root(self) -> N | None:
        """The topmost node; None if the tree is empty."""
        return cast("N | None", self._root)

    def child(self, node: N, side: int) -> N | None:
        """Return the child of `node` on one side, LEFT or RIGHT."""
        return cast("N | None", node.child[side])

    def copy(self, twin: Callable[[N], N]) -> RbTree[N]:
        """Return a tree of the same shape with `twin(node)`, which is in no tree, for each node."""
        other: RbTree[N] = RbTree()
        root = self.root
        if root is None:
            return other
        other._root = twin(root)
        pairs: list[tuple[RbNode, RbNode]] = [(root, other._root)]
        for node, new in pairs:  # which grows meanwhile
            new.red = node.red
            for side, child in enumerate(node.child):
                if child is not None:
                    below = twin(cast(N, child))
                    new.child[side], below.parent = below, new
                    pairs.append((child, below))
        return other

    def insert(self, node: N, parent: N | None, side: int) -> None:
        """Link `node` as the missing child of `parent` on `side`, and balance the tree.

        Without a parent it becomes the root. Models rb_link_node() and rb_insert_color().
        """
        node.parent = parent
        node.child = [None, None]
        node.red = True
        if parent is None:
            self._root = node
        else:
            parent.child[side] = node
        self._balance_after_insert(node)

    def replace(self, old: N, new: N) -> None:
        """Put `new`, which is in no tree, exactly where `old` is (rb_replace_node())."""
        new.child = list(old.child)
        new.red = old.red
        for child in new.child:
            if child is not None:
                child.parent = new
        self._put_in_place_of(old, new)

    def erase(self, node: N) -> None:
        """Unlink `node`, and balance the tree (rb_erase())."""
        left, right = node.child
        if left is None or right is None:
            parent, side = node.parent, _side(node)
            only = right if left is None else left
            self._put_in_place_of(node, only)
            if only is not None:
                only.red = False
            elif not node.red:
                self._balance_after_erase(parent, side)
            return
        successor: RbNode = right
        while (before := successor.child[LEFT]) is not None:
            successor = before
        parent, side, lost_black = self._pull_up(node, successor)
        if lost_black:
            self._balance_after_erase(parent, side)

    def _pull_up(self, node: RbNode, successor: RbNode) -> tuple[RbNode | None, int, bool]:
        """Put the successor of a node with two children in its place.

        Returns the parent and side of the subtree that got shorter, and whether that lost a black node.
        """
        left, right = node.child
        rest = successor.child[RIGHT]
        if successor is right:
            parent, side = successor, RIGHT
        else:
            parent, side = cast(RbNode, successor.parent), LEFT
            parent.child[LEFT] = rest
            if rest is not None:
                rest.parent = parent
            successor.child[RIGHT] = right
            cast(RbNode, right).parent = successor
        successor.child[LEFT] = left
        cast(RbNode, left).parent = successor
        lost_black = rest is None and not successor.red
        if rest is not None:
            rest.red = False
        successor.red = node.red
        self._put_in_place_of(node, successor)
        return parent, side, lost_black

    def _put_in_place_of(self, old: RbNode, new: RbNode | None) -> None:
        parent = old.parent
        if parent is None:
            self._root = new
        else:
            parent.child[_side(old)] = new
        if new is not None:
            new.parent = parent

    def _rotate(self, node: RbNode, side: int) -> None:
        """Move `node` one level down to `side`; its child on the other side takes its place."""
        pivot = cast(RbNode, node.child[1 - side])
        inner = pivot.child[side]
        self._put_in_place_of(node, pivot)
        node.child[1 - side] = inner
        if inner is not None:
            inner.parent = node
        pivot.child[side] = node
        node.parent = pivot

    def _balance_after_insert(self, node: RbNode) -> None:
        parent = node.parent
        while parent is not None and parent.red:
            grand = cast(RbNode, parent.parent)
            side = _side(parent)
            uncle = grand.child[1 - side]
            if uncle is not None and uncle.red:
                parent.red = uncle.red = False
                grand.red = True
                node, parent = grand, grand.parent
                continue
            if _side(node) != side:
                self._rotate(parent, side)
                parent = node
            parent.red = False
            grand.red = True
            self._rotate(grand, 1 - side)
            return
        if parent is None:
            node.red = False

    def _balance_after_erase(self, parent: RbNode | None, side: int) -> None:
        """Make up for the black node that the subtree of `parent` on `side` lost (____rb_erase_color())."""
        while parent is not None:
            sibling = cast(RbNode, parent.child[1 - side])
            if sibling.red:
                self._rotate(parent, side)
                sibling.red = False
                parent.red = True
                sibling = cast(RbNode, parent.child[1 - side])
            if _is_red(sibling.child[LEFT]) or _is_red(sibling.child[RIGHT]):
                self._borrow_from(sibling, parent, side)
                return
            sibling.red = True
            if parent.red:
                parent.red = False
                return
            if parent.parent is None:
                return
            parent, side = parent.parent, _side(parent)

    def _borrow_from(self, sibling: RbNode, parent: RbNode, side: int) -> None:
        """Rotate one black node over to `side`. The sibling must have a red child."""
        if not _is_red(sibling.child[1 - side]):
            near = cast(RbNode, sibling.child[side])
            self._rotate(sibling, 1 - side)
            sibling.red = True
            sibling = near
        self._rotate(parent, side)
        sibling.red = parent.red
        parent.red = False
        cast(RbNode, sibling.child[1 - side]).red = False


def _side(node: RbNode) -> int:
    """Return the side of `node` below its parent; RIGHT for a root."""
    parent = node.parent
    return LEFT if parent is not None and parent.child[LEFT] is node else RIGHT


def _is_red(node: RbNode | None) -> bool:
    return node is not None and node.red
