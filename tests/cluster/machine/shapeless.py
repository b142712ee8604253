"""The exact machine with trees that have no shape: a search meets what has the content it looks for, and
nothing else.

What it answers differently than the exact machine hangs on the shape of a red-black tree. The vectorised
machine without `tree_shape` answers as this one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import cluster.exact.ksmd
from cluster.arrays.rbtree import LEFT
from cluster.exact.objects import Frame, RmapItem
from cluster.exact.stable_tree import Entry, StableTrees, WalkEnd
from cluster.exact.unstable_tree import UnstableTrees, mergeable_frame


class Entries:
    """A stable tree as a dictionary; what is put in goes under the content looked up last."""

    def __init__(self) -> None:
        self.by_key: dict[int, Entry] = {}
        self._key_of: dict[Entry, int] = {}
        self.looked_up = 0

    @property
    def root(self) -> Entry | None:
        return next(iter(self.by_key.values()), None)

    def insert(self, entry: Entry, _parent: Entry | None, _side: int) -> None:
        self.by_key[self.looked_up] = entry
        self._key_of[entry] = self.looked_up

    def erase(self, entry: Entry) -> None:
        del self.by_key[self._key_of.pop(entry)]

    def replace(self, old: Entry, new: Entry) -> None:
        key = self._key_of.pop(old)
        self.by_key[key] = new
        self._key_of[new] = key


class ShapelessStableTrees(StableTrees):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._trees: list[Any] = [Entries() for _ in self._trees]

    def _walk(self, tree: Any, key: int, *, prune: bool) -> WalkEnd:
        tree.looked_up = key
        while (entry := tree.by_key.get(key)) is not None:
            picked = self._pick(tree, entry, prune)
            if picked is not None:
                return WalkEnd(*picked, None, LEFT)
        return WalkEnd(None, None, None, LEFT)


class ShapelessUnstableTrees(UnstableTrees):
    """Pages that changed are as good as gone from the tree; one that went is in the way of its like only."""

    def reset(self) -> None:
        self._items: list[dict[int, RmapItem]] = [{} for _ in range(self._nodes)]
        self._key_of: dict[RmapItem, int] = {}

    def erase(self, item: RmapItem) -> None:
        key = self._key_of.pop(item)
        if self._items[item.nid].get(key) is item:
            del self._items[item.nid][key]

    def search_insert(
        self, item: RmapItem, frame: Frame, nid: int, one_tree: bool
    ) -> tuple[RmapItem | None, bool]:
        other = self._items[nid].get(frame.key)
        if other is not None:
            found = mergeable_frame(other)
            if found is None or found is frame:
                return None, False
            if found.key == frame.key:
                return (other, False) if one_tree or found.node == nid else (None, False)
        item.nid = nid
        self._items[nid][frame.key] = item
        self._key_of[item] = frame.key
        return None, True


@contextmanager
def shapeless(*, stable: bool = True, unstable: bool = True) -> Iterator[None]:
    """Inside, exact machines are made with trees of which some have no shape."""
    with pytest.MonkeyPatch.context() as patch:
        if stable:
            patch.setattr(cluster.exact.ksmd, "StableTrees", ShapelessStableTrees)
        if unstable:
            patch.setattr(cluster.exact.ksmd, "UnstableTrees", ShapelessUnstableTrees)
        yield
