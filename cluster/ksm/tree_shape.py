"""The shapes of a stable and an unstable tree, where they are kept (`MachineSpec.tree_shape`).

What a search meets on its way down depends on the shape, and that on every insertion and removal before. The
tables of `cluster.ksm.trees` know what there is; here is where it stands in the kernel's red-black trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from cluster.arrays.rbtree import LEFT, RIGHT, RbNode, RbTree
from cluster.spec.content import page_key


@lru_cache(maxsize=1 << 16)
def memcmp_key(digest: int) -> int:
    """Orders symbolic contents as memcmp orders the pages that hold them."""
    return page_key(np.array([digest], np.uint64))[0]


class StableEntry(RbNode):
    """A content's place in the stable tree."""

    __slots__ = ("digest",)

    def __init__(self, digest: int) -> None:
        super().__init__()
        self.digest = digest


class UnstableEntry(RbNode):
    """A waiting page's place in the unstable tree; the digest is that of the page when it was put in."""

    __slots__ = ("digest", "key")

    def __init__(self, key: int, digest: int) -> None:
        super().__init__()
        self.key = key
        self.digest = digest


class Shape:
    def __init__(self) -> None:
        self.stable: RbTree[StableEntry] = RbTree()
        self.unstable: RbTree[UnstableEntry] = RbTree()
        self._spots: dict[int, StableEntry] = {}
        self._perches: dict[int, UnstableEntry] = {}

    # The stable tree.

    def has(self, digest: int) -> bool:
        return digest in self._spots

    def plant(self, digest: int) -> None:
        """A content comes into the stable tree, if it is not there."""
        if digest in self._spots:
            return
        key = memcmp_key(digest)
        parent, side, spot = None, LEFT, self.stable.root
        while spot is not None:
            side = LEFT if key < memcmp_key(spot.digest) else RIGHT
            parent, spot = spot, self.stable.child(spot, side)
        self._spots[digest] = StableEntry(digest)
        self.stable.insert(self._spots[digest], parent, side)

    def uproot(self, digest: int) -> None:
        """A content goes, if it is there."""
        spot = self._spots.pop(digest, None)
        if spot is not None:
            self.stable.erase(spot)

    def others(self, present: set[int]) -> list[int]:
        """The contents that have a place without being present."""
        return [digest for digest in self._spots if digest not in present]

    # The unstable tree.

    def start_pass(self) -> None:
        """The unstable tree is empty."""
        self.unstable = RbTree()
        self._perches = {}

    def perched(self) -> Iterator[int]:
        """The item keys in the unstable tree."""
        return iter(list(self._perches))

    def add(self, perch: UnstableEntry, parent: UnstableEntry | None, side: int) -> None:
        """Puts a page in where a search has ended."""
        self._perches[perch.key] = perch
        self.unstable.insert(perch, parent, side)

    def put(self, key: int, digest: int) -> None:
        """Puts a page into an unstable tree in which no page has changed."""
        order = memcmp_key(digest)
        parent, side, perch = None, LEFT, self.unstable.root
        while perch is not None:
            side = LEFT if order < memcmp_key(perch.digest) else RIGHT
            parent, perch = perch, self.unstable.child(perch, side)
        self.add(UnstableEntry(key, digest), parent, side)

    def take(self, key: int) -> None:
        """Takes a page out of the unstable tree, if it is there."""
        perch = self._perches.pop(key, None)
        if perch is not None:
            self.unstable.erase(perch)
