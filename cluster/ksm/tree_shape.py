"""The shapes of a stable and an unstable tree, kept for records only (`MachineSpec.tree_shape`).

What a search meets on its way down depends on the shape, and the shape on every insertion and removal before.
The tables of `cluster.ksm.trees` say which entries there are; the shape says where each of them stands in the
kernel's red-black trees.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cluster.arrays.rbtree import LEFT, RIGHT, RbNode, RbTree
from cluster.spec.content import page_key


@lru_cache(maxsize=1 << 16)
def memcmp_key(digest: int) -> int:
    """Return a number that orders symbolic contents as memcmp orders the pages that hold them."""
    return page_key(np.array([digest], np.uint64))[0]


class StableEntry(RbNode):
    """A content in the stable tree."""

    __slots__ = ("digest",)

    def __init__(self, digest: int) -> None:
        super().__init__()
        self.digest = digest


class UnstableEntry(RbNode):
    """A page in the unstable tree; the digest is that of the page when it was inserted."""

    __slots__ = ("digest", "key")

    def __init__(self, key: int, digest: int) -> None:
        super().__init__()
        self.key = key
        self.digest = digest


class Shape:
    """A stable and an unstable tree, and where in them each content and each page is."""

    def __init__(self) -> None:
        self.stable: RbTree[StableEntry] = RbTree()
        self.unstable: RbTree[UnstableEntry] = RbTree()
        self._stable_entries: dict[int, StableEntry] = {}
        self._unstable_entries: dict[int, UnstableEntry] = {}

    def copy(self) -> Shape:
        """Return trees of the same shape with entries of their own."""
        other = Shape()
        other._stable_entries = {digest: StableEntry(digest) for digest in self._stable_entries}
        other._unstable_entries = {
            key: UnstableEntry(key, entry.digest) for key, entry in self._unstable_entries.items()
        }
        other.stable = self.stable.copy(lambda entry: other._stable_entries[entry.digest])
        other.unstable = self.unstable.copy(lambda entry: other._unstable_entries[entry.key])
        return other

    # The stable tree.

    def insert_stable(self, digest: int) -> None:
        """Insert a content, unless the tree has it."""
        if digest in self._stable_entries:
            return
        key = memcmp_key(digest)
        parent, side, entry = None, LEFT, self.stable.root
        while entry is not None:
            side = LEFT if key < memcmp_key(entry.digest) else RIGHT
            parent, entry = entry, self.stable.child(entry, side)
        self._stable_entries[digest] = StableEntry(digest)
        self.stable.insert(self._stable_entries[digest], parent, side)

    def erase_stable(self, digest: int) -> None:
        """Erase a content, if the tree has it."""
        entry = self._stable_entries.pop(digest, None)
        if entry is not None:
            self.stable.erase(entry)

    def stable_digests(self) -> list[int]:
        """Return the contents in the stable tree, in the order of their insertion."""
        return list(self._stable_entries)

    # The unstable tree.

    def start_pass(self) -> None:
        """Empty the unstable tree."""
        self.unstable = RbTree()
        self._unstable_entries = {}

    def unstable_keys(self) -> list[int]:
        """Return the item keys in the unstable tree, in the order of their insertion."""
        return list(self._unstable_entries)

    def link_unstable(self, entry: UnstableEntry, parent: UnstableEntry | None, side: int) -> None:
        """Insert a page where a search has ended."""
        self._unstable_entries[entry.key] = entry
        self.unstable.insert(entry, parent, side)

    def insert_unstable(self, key: int, digest: int) -> None:
        """Insert a page into an unstable tree in which no page has changed."""
        order = memcmp_key(digest)
        parent, side, entry = None, LEFT, self.unstable.root
        while entry is not None:
            side = LEFT if order < memcmp_key(entry.digest) else RIGHT
            parent, entry = entry, self.unstable.child(entry, side)
        self.link_unstable(UnstableEntry(key, digest), parent, side)

    def erase_unstable(self, key: int) -> None:
        """Erase a page, if the tree has it."""
        entry = self._unstable_entries.pop(key, None)
        if entry is not None:
            self.unstable.erase(entry)
