"""The tree against a second, textbook implementation: same order, same shape, same colours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays.rbtree import LEFT, RIGHT, RbNode, RbTree


class Node(RbNode):
    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key


class Tree:
    """An RbTree of numbers."""

    def __init__(self) -> None:
        self.tree: RbTree[Node] = RbTree()
        self.nodes: dict[int, Node] = {}

    def add(self, key: int) -> None:
        node = self.nodes[key] = Node(key)
        parent, side, at = None, LEFT, self.tree.root
        while at is not None:
            side = LEFT if key < at.key else RIGHT
            parent, at = at, self.tree.child(at, side)
        self.tree.insert(node, parent, side)

    def drop(self, key: int) -> None:
        self.tree.erase(self.nodes.pop(key))

    def shape(self) -> object:
        return _shape(self.tree.root)


def _shape(node: Node | None) -> object:
    return None if node is None else (node.key, node.red, _shape(node.child[LEFT]), _shape(node.child[RIGHT]))


class Nil:
    """The sentinel of the textbook tree."""

    def __init__(self) -> None:
        self.red, self.p, self.l, self.r = False, self, self, self


class Book:
    """Red-black trees as in Introduction to Algorithms, chapter 13: with a sentinel and mirrored cases."""

    def __init__(self) -> None:
        self.nil = Nil()
        self.root = self.nil

    def rotate(self, x, left: bool) -> None:
        y = x.r if left else x.l
        inner = y.l if left else y.r
        if left:
            x.r = inner
        else:
            x.l = inner
        if inner is not self.nil:
            inner.p = x
        self.transplant(x, y)
        if left:
            y.l = x
        else:
            y.r = x
        x.p = y

    def transplant(self, u, v) -> None:
        if u.p is self.nil:
            self.root = v
        elif u is u.p.l:
            u.p.l = v
        else:
            u.p.r = v
        v.p = u.p

    def add(self, key: int) -> None:
        z = Nil()
        z.key, z.red, z.l, z.r = key, True, self.nil, self.nil
        y, x = self.nil, self.root
        while x is not self.nil:
            y, x = x, x.l if key < x.key else x.r
        z.p = y
        if y is self.nil:
            self.root = z
        elif key < y.key:
            y.l = z
        else:
            y.r = z
        while z.p.red:
            left = z.p is z.p.p.l
            uncle = z.p.p.r if left else z.p.p.l
            if uncle.red:
                z.p.red = uncle.red = False
                z.p.p.red = True
                z = z.p.p
                continue
            if z is (z.p.r if left else z.p.l):
                z = z.p
                self.rotate(z, left)
            z.p.red, z.p.p.red = False, True
            self.rotate(z.p.p, not left)
        self.root.red = False

    def find(self, key: int):
        x = self.root
        while x.key != key:
            x = x.l if key < x.key else x.r
        return x

    def drop(self, key: int) -> None:
        z = self.find(key)
        was_red = z.red
        if z.l is self.nil:
            x = z.r
            self.transplant(z, x)
        elif z.r is self.nil:
            x = z.l
            self.transplant(z, x)
        else:
            y = z.r
            while y.l is not self.nil:
                y = y.l
            was_red = y.red
            x = y.r
            if y.p is z:
                x.p = y
            else:
                self.transplant(y, x)
                y.r = z.r
                y.r.p = y
            self.transplant(z, y)
            y.l = z.l
            y.l.p = y
            y.red = z.red
        if not was_red:
            self.fix(x)

    def fix(self, x) -> None:
        while x is not self.root and not x.red:
            left = x is x.p.l
            w = x.p.r if left else x.p.l
            if w.red:
                w.red, x.p.red = False, True
                self.rotate(x.p, left)
                w = x.p.r if left else x.p.l
            if not w.l.red and not w.r.red:
                w.red = True
                x = x.p
                continue
            if not (w.r if left else w.l).red:
                (w.l if left else w.r).red = False
                w.red = True
                self.rotate(w, not left)
                w = x.p.r if left else x.p.l
            w.red, x.p.red = x.p.red, False
            (w.r if left else w.l).red = False
            self.rotate(x.p, left)
            x = self.root
        x.red = False

    def shape(self) -> object:
        return self._shape(self.root)

    def _shape(self, x) -> object:
        return None if x is self.nil else (x.key, x.red, self._shape(x.l), self._shape(x.r))


keys = st.integers(min_value=0, max_value=60)


@given(st.lists(st.tuples(st.booleans(), keys), max_size=150))
def test_same_shape_as_the_textbook(steps: list[tuple[bool, int]]) -> None:
    ours, book = Tree(), Book()
    for add, key in steps:
        if add and key not in ours.nodes:
            ours.add(key)
            book.add(key)
        elif not add and key in ours.nodes:
            ours.drop(key)
            book.drop(key)
    assert ours.shape() == book.shape()
    assert _parents_fit(ours.tree.root)


@given(st.sets(keys, min_size=1), st.data())
def test_replace_keeps_the_shape(numbers: set[int], data: st.DataObject) -> None:
    tree = Tree()
    for key in sorted(numbers):
        tree.add(key)
    before = tree.shape()
    key = data.draw(st.sampled_from(sorted(numbers)))
    new = Node(key)
    tree.tree.replace(tree.nodes[key], new)
    assert tree.shape() == before
    assert _parents_fit(tree.tree.root)
    tree.tree.erase(new)


@given(st.lists(keys, unique=True), st.sets(keys))
def test_a_copy_has_the_shape_and_nodes_of_its_own(added: list[int], dropped: set[int]) -> None:
    tree, twin = Tree(), Tree()
    for key in added:
        tree.add(key)
    twin.nodes = {key: Node(key) for key in added}
    twin.tree = tree.tree.copy(lambda node: twin.nodes[node.key])
    before = tree.shape()
    assert twin.shape() == before
    assert _parents_fit(twin.tree.root)
    for key in dropped.intersection(added):
        twin.drop(key)
    assert tree.shape() == before
    for key in dropped.intersection(added):
        tree.drop(key)
    assert twin.shape() == tree.shape()


def test_ascending_keys() -> None:
    tree = Tree()
    for key in range(1, 8):
        tree.add(key)
    assert tree.shape() == (
        2,
        False,
        (1, False, None, None),
        (4, True, (3, False, None, None), (6, False, (5, True, None, None), (7, True, None, None))),
    )


def _parents_fit(node: Node | None, parent: Node | None = None) -> bool:
    if node is None:
        return True
    return node.parent is parent and all(_parents_fit(child, node) for child in node.child)
