"""The kernel's rules for the stable nodes of one content: chains, dups, and nodes that have migrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cluster.ksm.decide.message_rows import MessageRows
from cluster.ksm.decide.split_tries import SplitTries
from cluster.spec.profile import Profile
from cluster.wire.window import Window


class MergeRules(NamedTuple):
    """What does not change during a window."""

    profile: Profile
    #: Most rmap_items that a stable node takes.
    limit: int
    window: Window
    #: Mappings of a frame of this node, by pfn.
    mapcount: Callable[[int], int]
    #: For tries to split huge pages; None if there are none.
    tries: SplitTries | None


@dataclass(slots=True, eq=False)
class NodeOfContent:
    """A stable node."""

    frame: int
    #: rmap_items.
    count: int
    #: The frame was freed.
    dead: bool = False
    #: The frame is on another node by now.
    away: bool = False
    #: The private frame of which this window made the stable node; -1 for an older one.
    origin: int = -1


class ContentNodes:
    """The stable nodes of one content: in the tree none, one, or a chain of dups; and migrated ones."""

    def __init__(
        self,
        in_tree: list[NodeOfContent],
        migrating: list[NodeOfContent],
        rules: MergeRules,
        messages: MessageRows,
        *,
        chain: bool,
    ) -> None:
        #: In the stable tree, in the order in which a search tries them.
        self.in_tree = in_tree
        #: Whether they are dups in a chain, which may be empty.
        self.chain = chain
        #: Stable nodes with frames of this node that are in no tree of it.
        self.migrating = migrating
        #: Called when the content's entry in the stable tree may have come or gone.
        self.on_change: Callable[[], None] = lambda: None
        self._rules = rules
        self._messages = messages

    def by_frame(self, frame: int) -> NodeOfContent | None:
        """Return the stable node of a KSM frame."""
        return next((node for node in [*self.in_tree, *self.migrating] if node.frame == frame), None)

    def remove_item(self, frame: int) -> None:
        """Remove an item from the stable node of this frame, if there is one.

        A stable node whose frame was freed goes with the first of its items that leaves. Another one stays,
        with no items in the end, until its frame is freed (`Trees.on_stale`).
        """
        node = self.by_frame(frame)
        if node is not None and node.dead:
            self.drop(node)
        elif node is not None:
            node.count -= 1

    def has_room(self, node: NodeOfContent, offset: int = 0) -> bool:
        """Return whether a search may end at this stable node (is_page_sharing_candidate())."""
        if not self._rules.profile.chains:
            return True
        return 0 < node.count < self._rules.limit - offset

    def insert(self, node: NodeOfContent, *, chain: bool) -> None:
        """Insert a stable node in front of all others (stable_tree_insert(), stable_node_chain_add_dup())."""
        self.chain = chain
        self.in_tree.insert(0, node)
        self.on_change()

    def drop(self, node: NodeOfContent) -> None:
        """Remove a stable node whose frame was freed (remove_node_from_stable_tree())."""
        (self.migrating if node in self.migrating else self.in_tree).remove(node)
        self._messages.dropped.append((node.frame, self._messages.position))
        self.on_change()

    # Which dup of a chain gets the next sharer.

    def pick_dup_and_tidy(self, *, prune: bool) -> NodeOfContent | None:
        """Return the stable node at which a search ends; remove dead ones, reorder or collapse the chain.

        Models stable_node_dup(): the first dup with room; with `prune` the fullest dup with room; without
        any, the first dup. A dup with room for two moves to the front of the chain.
        """
        if not self.chain:
            if self.in_tree and self.in_tree[0].dead:
                self.drop(self.in_tree[0])
            return self.in_tree[0] if self.in_tree else None
        found = self._best_dup(every=prune)
        if found is None or (len(self.in_tree) == 1 and self._collapses(found, prune)):
            self.chain = False
            self.on_change()
        elif self.in_tree[0] is not found and self.has_room(found, 1):
            self.in_tree.remove(found)
            self.in_tree.insert(0, found)
        return found

    def _collapses(self, only: NodeOfContent, prune: bool) -> bool:
        return self._rules.profile.collapse_always or (prune and self.has_room(only))

    def _best_dup(self, *, every: bool) -> NodeOfContent | None:
        """Return the first dup with room, with `every` the fullest with room; if all are full, the first."""
        found: NodeOfContent | None = None
        for node in list(self.in_tree):
            if node.dead:
                self.drop(node)
                continue
            if found is None or self._better(node, found):
                found = node
                if not every and self.has_room(found):
                    break
        return found

    def _better(self, node: NodeOfContent, found: NodeOfContent) -> bool:
        return self.has_room(node) and (not self.has_room(found) or node.count > found.count)

    # Stable nodes that have migrated.

    def settle(self, node: NodeOfContent, *, chain: bool) -> None:
        """Insert a migrated stable node into the tree of its new node."""
        self.migrating.remove(node)
        self._messages.linked.append(node.frame)
        self.insert(node, chain=chain)

    def replace(self, away: NodeOfContent, node: NodeOfContent | None) -> None:
        """Remove a stable node that has migrated away; insert the migrated `node` in its place, if any."""
        self.in_tree.remove(away)
        self._messages.unlinked.append(away.frame)
        if node is not None:
            self.settle(node, chain=self.chain)
        self.on_change()
