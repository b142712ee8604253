"""The contents that `merge_plan` has no rule for: decided one after the other, event by event.

Here are chains that lose sharers, stable nodes whose frames were freed or have migrated, and pages that went
or became KSM pages while they waited. There are few of them in a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cluster.arrays.words import I64, PFN_MASK, U64, is_ksm_word, ksm_word
from cluster.ksm.effects import Effects
from cluster.ksm.visit import Event
from cluster.spec.profile import Profile
from cluster.wire.window import Window

_STRAYS = (Event.STRAY, Event.STRAY_HANGING, Event.STRAY_UNSEEN, Event.STRAY_HANGING_UNSEEN)
_HANGING = (Event.STRAY_HANGING, Event.STRAY_HANGING_UNSEEN)
_UNSEEN = (Event.STRAY_UNSEEN, Event.STRAY_HANGING_UNSEEN)
_SEARCHES = (
    Event.CANDIDATE,
    Event.CANDIDATE_SHARED,
    Event.CANDIDATE_ORPHAN,
    Event.STABLE_ONLY,
    Event.STABLE_OR_ZERO,
)
_VOLATILE = (Event.STABLE_ONLY, Event.VOLATILE_SHARED)
_STABLE_ONLY = (Event.STABLE_ONLY, Event.STABLE_OR_ZERO)


@dataclass(slots=True, eq=False)
class Node:
    """A stable node."""

    frame: int
    count: int
    dead: bool = False
    #: Its frame is on another node by now.
    away: bool = False
    #: The private frame that it was made of in this window.
    origin: int = -1


@dataclass(slots=True)
class UnstablePage:
    """A page in the unstable tree."""

    key: int
    frame: int
    #: It went, or left for another node's tree: it can only be in the way.
    blocked: bool
    #: Its row in the table of waiting pages; -1 for none yet.
    row: int = -1


@dataclass(slots=True)
class Visit:
    """One event."""

    pos: int
    key: int
    frame: int
    kind: Event
    #: Of a page that waited, its row in the table of waiting pages; else -1.
    row: int = -1


@dataclass(slots=True)
class Rules:
    """What does not change during a window."""

    profile: Profile
    limit: int
    window: Window
    #: Mappings of a frame of this node.
    mapcount: Callable[[int], int]


@dataclass(slots=True)
class Outcome:
    """What is to be told, collected over all contents of a window."""

    founded: list[tuple[int, int, int]] = field(default_factory=list)
    merged: list[tuple[int, int, int]] = field(default_factory=list)
    broken: list[tuple[int, int, int]] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    hung: list[tuple[int, int]] = field(default_factory=list)
    loose: list[tuple[int, int]] = field(default_factory=list)
    zero: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    unlinked: list[int] = field(default_factory=list)
    landed: list[int] = field(default_factory=list)

    def tell(self, effects: Effects) -> None:
        keys, frames, digests = _triples(self.founded)
        effects.rekey(keys, digests)
        effects.found_nodes(keys, frames)
        keys, frames, digests = _triples(self.merged)
        effects.rekey(keys, digests)
        effects.map(keys, frames)
        effects.get(frames, np.ones(len(frames), np.int64))
        effects.break_out(*_triples(self.broken))
        waits = np.array(self.waiting, np.uint64).reshape(-1, 2)
        effects.wait(waits[:, 0].astype(np.int64), waits[:, 1])
        hung = np.array(self.hung, np.int64).reshape(-1, 2)
        effects.hang(hung[:, 0], hung[:, 1].astype(np.uint8))
        loose = np.array(self.loose, np.int64).reshape(-1, 2)
        effects.loosen(loose[:, 0], loose[:, 1].astype(np.uint8))
        effects.map_zero(np.array(self.zero, np.int64))
        effects.drop(np.array(self.dropped, np.int64))
        effects.unlink(np.array(self.unlinked, np.int64))
        effects.land(np.array(self.landed, np.int64))


def _triples(rows: list[tuple[int, int, int]]) -> tuple[I64, I64, U64]:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2]


def run(events: list[tuple[Content, Visit]], profile: Profile) -> None:
    """Events of one content or of several, in scan order."""
    late: Callable[[], None] | None = None
    for number, (content, event) in enumerate(events):
        following = events[number + 1][1] if number + 1 < len(events) else None
        if following is not None and _leaves_late(event, following, profile):
            late = partial(content.leave, event.frame)
        else:
            content.happen(event, late or (lambda: None))
            late = None


def _leaves_late(event: Visit, following: Visit, profile: Profile) -> bool:
    """Old kernels search the stable tree while the page's item still hangs on its old stable node."""
    return (
        not profile.checksum_first
        and event.kind == Event.LEAVE
        and following.pos == event.pos
        and following.kind in _SEARCHES
    )


class Content:
    """One content in one node's trees."""

    def __init__(
        self,
        digest: int,
        nodes: list[Node],
        chain: bool,
        migrating: list[Node],
        waiter: UnstablePage | None,
        rules: Rules,
        outcome: Outcome,
    ) -> None:
        self.digest = digest
        #: What stands in the stable tree, the first to be tried foremost.
        self.nodes = nodes
        self.chain = chain
        #: Stable nodes with frames of this node that are in no tree of it.
        self.migrating = migrating
        self.waiter = waiter
        self._rules = rules
        self._out = outcome

    def happen(self, event: Visit, leave: Callable[[], None]) -> None:
        """One event; `leave` has the item leave another stable node, where that comes after the search."""
        match event.kind:
            case Event.LEAVE:
                self.leave(event.frame)
            case Event.JOIN_OWN:
                self._add(event.frame, 1)
            case Event.ERASE:
                self._erase(event.key)
            case Event.VOLATILE_SHARED:
                self._join_own(event)
            case kind if kind in _STRAYS:
                self._stray(event)
            case _ if self._join_own(event):
                leave()
            case _:
                self._lookup(event, leave)

    def _erase(self, key: int) -> None:
        if self.waiter is not None and self.waiter.key == key:
            self.waiter = None

    # Items.

    def _named(self, frame: int) -> Node | None:
        return next((node for node in [*self.nodes, *self.migrating] if node.frame == frame), None)

    def _add(self, frame: int, items: int) -> None:
        node = self._named(frame)
        if node is not None:
            node.count += items

    def leave(self, frame: int) -> None:
        """An item leaves the stable node of this frame."""
        node = self._named(frame)
        if node is not None and node.dead:
            self._drop(node)
        elif node is not None:
            node.count -= 1

    def _join_own(self, event: Visit) -> bool:
        """Whether the page's frame, which it shared since a fork, has become a KSM frame by now."""
        node = next((node for node in self.nodes if node.origin == event.frame), None)
        if node is None:
            return False
        node.count += 1
        self._out.hung.append((event.key, int(event.kind in _VOLATILE)))
        return True

    # Searches (stable_tree_search(), unstable_tree_search_insert()).

    def _lookup(self, event: Visit, leave: Callable[[], None]) -> None:
        node = self._search()
        leave()
        if node is not None:
            if event.kind == Event.CANDIDATE_ORPHAN:
                self._out.loose.append((event.key, 0))
            else:
                node.count += 1
                self._out.merged.append((event.key, node.frame, self.digest))
        elif event.kind not in _STABLE_ONLY:
            if not self._search_unstable(event):
                self._out.loose.append((event.key, 0))
        elif event.kind == Event.STABLE_OR_ZERO:
            self._out.zero.append(event.key)

    def _search(self) -> Node | None:
        """The stable node that a page may join."""
        node = self._find(prune=self._rules.window.prune)
        if node is None or not self._has_room(node):
            return None
        if node.away:
            self._replace(node, None)
            return None
        return node

    def _search_unstable(self, event: Visit) -> bool:
        """Meet the page that waits, or wait; returns whether the page is in a tree now."""
        waiter, frame = self._meet(event), event.frame
        if waiter is None:
            return True
        if waiter.blocked or waiter.frame == frame or is_ksm_word(frame):
            return False
        word = ksm_word(frame, self._rules.window.seq)
        if is_ksm_word(waiter.frame):
            self._out.broken.append((event.key, word, self.digest))
            return False
        self._out.founded.append((event.key, word, self.digest))
        self._out.merged.append((waiter.key, word, self.digest))
        self._erase(waiter.key)
        self._insert(Node(word, 2, origin=frame))
        return True

    def _meet(self, event: Visit) -> UnstablePage | None:
        """The page at which the search of the unstable tree ends; without any, the page is put in."""
        if self.waiter is None:
            self.waiter = UnstablePage(event.key, event.frame, blocked=False, row=event.row)
            return None
        return self.waiter

    def _insert(self, node: Node) -> None:
        """stable_tree_insert()."""
        self.chain = self._find(prune=False) is not None
        self.nodes.insert(0, node)
        self._changed()

    # Stable nodes that have migrated.

    def _stray(self, event: Visit) -> None:
        """A visit of a page whose KSM frame is not, or was not, in the tree of its node."""
        ghost = next((node for node in self.nodes if node.frame == event.frame and node.away), None)
        if ghost is not None:
            self._replace(ghost, None)
            return
        hanging = event.kind in _HANGING
        node = next((node for node in self.migrating if node.frame == event.frame), None)
        if node is None:
            self._join_landed(event, hanging)
            return
        found = self._land(node)
        if found is node and hanging:
            return
        node.count -= hanging
        if found is node:
            node.count += 1
            self._out.hung.append((event.key, 0))
        elif found is not None:
            self._out.loose.append((event.key, 0))
        elif self._unseen(event) or not self._search_unstable(event):
            self._out.loose.append((event.key, int(self._unseen(event))))

    def _unseen(self, event: Visit) -> bool:
        return not self._rules.profile.checksum_first and event.kind in _UNSEEN

    def _join_landed(self, event: Visit, hanging: bool) -> None:
        if not hanging and self._named(event.frame) is not None:
            self._add(event.frame, 1)
            self._out.hung.append((event.key, 0))

    def _land(self, node: Node) -> Node | None:
        """Looks for the content of a migrated stable node in the tree of its new node, where it gets its
        place; returns the stable node that the page may share, perhaps its own."""
        there = self._find(prune=self._rules.window.prune)
        if there is None:
            self._settle(node, chain=False)
        elif self._rules.profile.chains and self._rules.mapcount(node.frame & PFN_MASK) > 1:
            self._settle(node, chain=True)
        elif not self._has_room(there):
            return None
        elif there.away:
            self._replace(there, node)
        else:
            return there
        return node if self._has_room(node) else None

    def _settle(self, node: Node, *, chain: bool) -> None:
        self.migrating.remove(node)
        self.nodes.insert(0, node)
        self.chain = chain
        self._out.landed.append(node.frame)
        self._changed()

    def _replace(self, ghost: Node, node: Node | None) -> None:
        """A node found in the tree has migrated away: it goes, and `node` takes its place."""
        self.nodes.remove(ghost)
        self._out.unlinked.append(ghost.frame)
        if node is not None:
            self._settle(node, chain=self.chain)
        self._changed()

    # Places in the stable tree (stable_node_dup()).

    def _has_room(self, node: Node, offset: int = 0) -> bool:
        if not self._rules.profile.chains:
            return True
        return 0 < node.count < self._rules.limit - offset

    def _drop(self, node: Node) -> None:
        """remove_node_from_stable_tree()."""
        (self.migrating if node in self.migrating else self.nodes).remove(node)
        self._out.dropped.append(node.frame)
        self._changed()

    def _changed(self) -> None:
        """Something has come to the content's place in the stable tree, or gone from it."""

    def _find(self, *, prune: bool) -> Node | None:
        """What a search of the stable tree for this content ends with."""
        return self.pick(prune=prune)

    def pick(self, *, prune: bool) -> Node | None:
        """What a search finds at this content's place; what is stale goes."""
        if not self.chain:
            if self.nodes and self.nodes[0].dead:
                self._drop(self.nodes[0])
            return self.nodes[0] if self.nodes else None
        found = self._best(every=prune)
        if found is None or (len(self.nodes) == 1 and self._collapses(found, prune)):
            self.chain = False
            self._changed()
        elif self.nodes[0] is not found and self._has_room(found, 1):
            self.nodes.remove(found)
            self.nodes.insert(0, found)
        return found

    def _collapses(self, only: Node, prune: bool) -> bool:
        return self._rules.profile.collapse_always or (prune and self._has_room(only))

    def _best(self, *, every: bool) -> Node | None:
        """The first dup with room or, of every one, the fullest with room; without any, the first."""
        found: Node | None = None
        for node in list(self.nodes):
            if node.dead:
                self._drop(node)
                continue
            if found is None or self._better(node, found):
                found = node
                if not every and self._has_room(found):
                    break
        return found

    def _better(self, node: Node, found: Node) -> bool:
        return self._has_room(node) and (not self._has_room(found) or node.count > found.count)
