"""Searches that walk down trees with shapes, one after the other (`MachineSpec.tree_shape`).

A search meets what stands on its way: stable nodes whose frames were freed, chains, and pages that changed or
were gone while they waited. So each search may change the shape that the next one walks. The walk changes the
copy of the shape that is part of the decision; the trees' own shape stays.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.arrays.rbtree import LEFT, RIGHT
from cluster.ksm.decide.message_rows import MessageRows
from cluster.ksm.decide.sequential import Content, UnstablePage, Visit
from cluster.ksm.decide.split_tries import SplitTries
from cluster.ksm.decide.stable_nodes import ContentNodes, MergeRules, NodeOfContent
from cluster.ksm.tree_shape import Shape, UnstableEntry, memcmp_key


class Walk:
    """Searches in one stable and one unstable tree."""

    def __init__(
        self,
        shape: Shape,
        load: Callable[[int, Walk], WalkedContent],
        changed_by_searches: set[int],
        tries: SplitTries | None,
    ) -> None:
        """`changed_by_searches`: contents that a search changes when it passes by."""
        self._shape = shape
        self._load = load
        self._changed_by_searches = changed_by_searches
        self._tries = tries
        self.contents: dict[int, WalkedContent] = {}
        #: By item key: the pages in the unstable tree, and the digests of what they hold now.
        self.unstable_pages: dict[int, UnstablePage] = {}
        self.holds: dict[int, int] = {}

    def content(self, digest: int) -> WalkedContent:
        """Return a content; load it from the tables if it is new here."""
        if digest not in self.contents:
            self.contents[digest] = self._load(digest, self)
        return self.contents[digest]

    def update_stable(self, digest: int, nodes: ContentNodes) -> None:
        """Insert a content into the stable tree, or erase it, as it has stable nodes or has none."""
        if nodes.in_tree or nodes.chain:
            self._shape.insert_stable(digest)
        else:
            self._shape.erase_stable(digest)

    def search_stable(self, digest: int, *, prune: bool) -> bool:
        """Walk down to a content, and tidy up what is passed; return whether the content is there."""
        key, tree = memcmp_key(digest), self._shape.stable
        entry = tree.root
        while entry is not None and entry.digest != digest:
            if not self._pass_by(entry.digest, prune=prune):
                entry = tree.root
                continue
            entry = tree.child(entry, LEFT if key < memcmp_key(entry.digest) else RIGHT)
        return entry is not None

    def _pass_by(self, digest: int, *, prune: bool) -> bool:
        """Apply what a search changes when it passes by a content; return whether the content remains."""
        if digest not in self._changed_by_searches and digest not in self.contents:
            return True
        return self.content(digest).nodes.pick_dup_and_tidy(prune=prune) is not None

    def search_unstable(self, digest: int, visit: Visit) -> UnstablePage | None:
        """Return the page at which the search ends; if there is none, insert the page of the visit."""
        key, tree = memcmp_key(digest), self._shape.unstable
        parent: UnstableEntry | None = None
        side = LEFT
        entry = tree.root
        while entry is not None:
            page, holds = self.unstable_pages[entry.key], self.holds[entry.key]
            if holds == 0 and self._tries is not None:
                page.look(self._tries, visit.pos)
            # A page that is gone, or has the very same frame, ends the search whatever it holds.
            if page.frame < 0 or page.frame == visit.frame or holds == digest:
                return page
            side = LEFT if key < memcmp_key(holds) else RIGHT
            parent, entry = entry, tree.child(entry, side)
        self._shape.link_unstable(UnstableEntry(visit.key, digest), parent, side)
        self.unstable_pages[visit.key] = UnstablePage(
            visit.key, visit.frame, blocked=visit.frame < 0, row=visit.row
        )
        self.holds[visit.key] = digest
        return None

    def erase_unstable(self, key: int) -> None:
        """Erase a page from the unstable tree, if it is there."""
        self._shape.erase_unstable(key)
        self.unstable_pages.pop(key, None)


class WalkedContent(Content):
    """A content in trees that have a shape."""

    def __init__(
        self, digest: int, nodes: ContentNodes, rules: MergeRules, messages: MessageRows, walk: Walk
    ) -> None:
        super().__init__(digest, nodes, None, rules, messages)
        self._walk = walk
        nodes.on_change = lambda: walk.update_stable(digest, nodes)

    def _find_stable(self, *, prune: bool) -> NodeOfContent | None:
        while self._walk.search_stable(self.digest, prune=prune):
            found = self.nodes.pick_dup_and_tidy(prune=prune)
            if found is not None:
                return found
        return None

    def _find_or_insert_unstable(self, visit: Visit) -> UnstablePage | None:
        return self._walk.search_unstable(self.digest, visit)

    def _erase_unstable(self, key: int) -> None:
        self._walk.erase_unstable(key)
