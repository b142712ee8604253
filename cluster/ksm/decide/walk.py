"""A window in which answers may hang on the shape of a tree, search by search (`MachineSpec.tree_shape`).

Searches meet what stands on their way: stable nodes whose frames were freed, chains, and pages that changed
or went while they waited.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.arrays.rbtree import LEFT, RIGHT
from cluster.ksm.decide.sequential import Content, Node, Outcome, Rules, UnstablePage, Visit
from cluster.ksm.tree_shape import Shape, UnstableEntry, memcmp_key


class Walk:
    """Searches in one stable and one unstable tree."""

    def __init__(
        self,
        shape: Shape,
        load: Callable[[int, Walk], WalkedContent],
        odd: set[int],
    ) -> None:
        """`odd` are the contents at which a search does something in passing."""
        self._shape = shape
        self._load = load
        self._odd = odd
        self.contents: dict[int, WalkedContent] = {}
        #: By item key: the pages in the unstable tree, and what they hold now.
        self.waiters: dict[int, UnstablePage] = {}
        self.holds: dict[int, int] = {}

    def content(self, digest: int) -> WalkedContent:
        """A content, from the tables if it is new here."""
        if digest not in self.contents:
            self.contents[digest] = self._load(digest, self)
        return self.contents[digest]

    def changed(self, content: Content) -> None:
        """A content has come to the stable tree, or gone."""
        if content.nodes or content.chain:
            self._shape.plant(content.digest)
        else:
            self._shape.uproot(content.digest)

    def search_stable(self, digest: int, *, prune: bool) -> bool:
        """Walks down to a content; whether it is there. What is passed is dealt with as searches do."""
        key, tree = memcmp_key(digest), self._shape.stable
        spot = tree.root
        while spot is not None and spot.digest != digest:
            if not self._pass_by(spot.digest, prune=prune):
                spot = tree.root
                continue
            spot = tree.child(spot, LEFT if key < memcmp_key(spot.digest) else RIGHT)
        return spot is not None

    def _pass_by(self, digest: int, *, prune: bool) -> bool:
        """Whether the content is still there afterwards."""
        if digest not in self._odd and digest not in self.contents:
            return True
        return self.content(digest).pick(prune=prune) is not None

    def search_unstable(self, digest: int, event: Visit) -> UnstablePage | None:
        """The page at which the search ends; without any, the page of the event is put in."""
        key, tree = memcmp_key(digest), self._shape.unstable
        parent: UnstableEntry | None = None
        side = LEFT
        perch = tree.root
        while perch is not None:
            waiter, holds = self.waiters[perch.key], self.holds[perch.key]
            # A page that went, or the very same frame, ends the search whatever it holds.
            if waiter.frame < 0 or waiter.frame == event.frame or holds == digest:
                return waiter
            side = LEFT if key < memcmp_key(holds) else RIGHT
            parent, perch = perch, tree.child(perch, side)
        self._shape.add(UnstableEntry(event.key, digest), parent, side)
        self.waiters[event.key] = UnstablePage(event.key, event.frame, blocked=False, row=event.row)
        self.holds[event.key] = digest
        return None

    def erase(self, key: int) -> None:
        """A page leaves the unstable tree."""
        self._shape.take(key)
        self.waiters.pop(key, None)


class WalkedContent(Content):
    """A content in trees that have a shape."""

    def __init__(
        self,
        digest: int,
        nodes: list[Node],
        chain: bool,
        migrating: list[Node],
        rules: Rules,
        outcome: Outcome,
        walk: Walk,
    ) -> None:
        super().__init__(digest, nodes, chain, migrating, None, rules, outcome)
        self._walk = walk

    def _changed(self) -> None:
        self._walk.changed(self)

    def _find(self, *, prune: bool) -> Node | None:
        while self._walk.search_stable(self.digest, prune=prune):
            found = self.pick(prune=prune)
            if found is not None:
                return found
        return None

    def _meet(self, event: Visit) -> UnstablePage | None:
        return self._walk.search_unstable(self.digest, event)

    def _erase(self, key: int) -> None:
        self._walk.erase(key)
