"""The contents that `plan` has no rule for: decided one after the other, visit by visit.

These have chains that lose sharers, stable nodes whose frames were freed or have migrated, or pages that were
gone or became KSM pages while they waited. There are few of them in a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cluster.arrays.words import PFN_MASK, block_of, is_huge_word, is_ksm_word, ksm_word
from cluster.ksm.decide.message_rows import MessageRows
from cluster.ksm.decide.plan import NONE
from cluster.ksm.decide.split_tries import SplitTries
from cluster.ksm.decide.stable_nodes import ContentNodes, MergeRules, NodeOfContent
from cluster.ksm.visit import VisitKind
from cluster.spec.profile import Profile
from cluster.wire.window import END

_MIGRATED = (
    VisitKind.MIGRATED,
    VisitKind.MIGRATED_ADDED,
    VisitKind.MIGRATED_CHANGED,
    VisitKind.MIGRATED_ADDED_CHANGED,
)
_ADDED = (VisitKind.MIGRATED_ADDED, VisitKind.MIGRATED_ADDED_CHANGED)
_CHANGED = (VisitKind.MIGRATED_CHANGED, VisitKind.MIGRATED_ADDED_CHANGED)
_SEARCHES = (
    VisitKind.CANDIDATE,
    VisitKind.CANDIDATE_SHARED,
    VisitKind.CANDIDATE_FIXED,
    VisitKind.STABLE_ONLY,
    VisitKind.STABLE_ONLY_FIXED,
    VisitKind.STABLE_OR_ZERO,
    VisitKind.HUGE_ZERO,
)
_VOLATILE = (VisitKind.STABLE_ONLY, VisitKind.VOLATILE_SHARED)
_STABLE_ONLY = (VisitKind.STABLE_ONLY, VisitKind.STABLE_ONLY_FIXED, VisitKind.STABLE_OR_ZERO)
_FIXED = (VisitKind.CANDIDATE_FIXED, VisitKind.STABLE_ONLY_FIXED)


@dataclass(slots=True)
class UnstablePage:
    """A page in the unstable tree."""

    key: int
    frame: int
    #: The page is gone, or has moved to another node's tree: searches end at it without a result.
    blocked: bool
    #: Its row in the table; -1 for none yet.
    row: int = NONE
    #: It holds zeros now: searches do not meet it unless a split takes it away.
    lost: bool = False
    #: The scan position at which the split of its huge page has taken it away, if it has.
    gone: int = END

    def look(self, tries: SplitTries, pos: int) -> None:
        """Block searches if the split of a huge page has taken this page of zeros away."""
        if tries.takes_one_away(self.frame) and not tries.whole(self.frame, pos):
            self.gone = tries.split_position(block_of(self.frame))
            self.frame, self.blocked = NONE, True

    def gone_at(self, tries: SplitTries) -> int:
        """Return when this page of zeros was taken away, or `END`."""
        if tries.takes_one_away(self.frame):
            return tries.split_position(block_of(self.frame))
        return self.gone


class Visit(NamedTuple):
    """What one visit asks of the trees; columns as in SortedVisits."""

    pos: int
    key: int
    frame: int
    kind: VisitKind
    row: int


def run(visits: list[tuple[Content, Visit]], profile: Profile) -> None:
    """Decide visits to pages of one content or of several, in scan order."""
    late: Callable[[], None] | None = None
    for number, (content, visit) in enumerate(visits):
        following = visits[number + 1][1] if number + 1 < len(visits) else None
        if following is not None and _leaves_late(visit, following, profile):
            late = partial(content.nodes.remove_item, visit.frame)
        else:
            content.visit(visit, late or (lambda: None))
            late = None


def _leaves_late(visit: Visit, following: Visit, profile: Profile) -> bool:
    """Return whether the item is still on its old stable node when the stable tree is searched."""
    return (
        not profile.checksum_first
        and visit.kind == VisitKind.LEAVE
        and following.pos == visit.pos
        and following.kind in _SEARCHES
    )


class Content:
    """One content in one node's trees, which a visit changes."""

    def __init__(
        self,
        digest: int,
        nodes: ContentNodes,
        unstable_page: UnstablePage | None,
        rules: MergeRules,
        messages: MessageRows,
    ) -> None:
        self.digest = digest
        self.nodes = nodes
        #: The page in the unstable tree that holds this content.
        self.unstable_page = unstable_page
        #: Frames that this window made KSM frames without a stable node; pages may share them since a fork.
        self._orphaned: set[int] = set()
        self._rules = rules
        self._messages = messages

    def visit(self, visit: Visit, leave: Callable[[], None]) -> None:
        """Decide one visit.

        `leave` removes the item from its old stable node, where that comes after the search.
        """
        self._messages.position = visit.pos
        if self.digest == 0 and self._taken_away(visit):
            return
        match visit.kind:
            case VisitKind.LEAVE:
                self.nodes.remove_item(visit.frame)
            case VisitKind.APPEND:
                self._append(visit.frame)
            case VisitKind.ERASE:
                self._erase_unstable(visit.key)
            case VisitKind.VOLATILE_SHARED:
                self._append_to_own(visit)
            case kind if kind in _MIGRATED:
                self._visit_migrated(visit)
            case _ if self._append_to_own(visit):
                leave()
            case _:
                self._lookup(visit, leave)

    @property
    def ends_searches(self) -> bool:
        """Return whether nothing comes of visits to pages that are in no tree, as a page is gone."""
        page, nodes = self.unstable_page, self.nodes
        gone = page is not None and page.blocked
        return gone and not (nodes.in_tree or nodes.migrating or nodes.chain)

    # What a walk through trees with shapes does otherwise.

    def _find_stable(self, *, prune: bool) -> NodeOfContent | None:
        """Return the stable node at which a search of the stable tree for this content ends."""
        return self.nodes.pick_dup_and_tidy(prune=prune)

    def _find_or_insert_unstable(self, visit: Visit) -> UnstablePage | None:
        """Return the page at which a search of the unstable tree ends; if there is none, insert this one."""
        page = self.unstable_page
        if page is not None and page.lost and self._rules.tries is not None:
            page.look(self._rules.tries, visit.pos)
            page = page if page.blocked else None
        if page is None:
            blocked = visit.frame < 0
            gone = visit.pos if blocked else END
            self.unstable_page = UnstablePage(
                visit.key, visit.frame, blocked=blocked, row=visit.row, gone=gone
            )
        return page

    def _erase_unstable(self, key: int) -> None:
        """Erase a page from the unstable tree, if it is there."""
        if self.unstable_page is not None and self.unstable_page.key == key:
            self.unstable_page = None

    # Pages that map KSM frames already (stable_tree_append()).

    def _append(self, frame: int) -> None:
        node = self.nodes.by_frame(frame)
        if node is not None:
            node.count += 1

    def _append_to_own(self, visit: Visit) -> bool:
        """Append a page whose frame, shared since a fork, has become a KSM frame in this window, if so."""
        node = next((node for node in self.nodes.in_tree if node.origin == visit.frame), None)
        if node is None:
            return False
        node.count += 1
        self._messages.added_to_stable.append((visit.key, int(visit.kind in _VOLATILE)))
        return True

    # Searches (stable_tree_search(), unstable_tree_search_insert()).

    def _lookup(self, visit: Visit, leave: Callable[[], None]) -> None:
        if visit.kind == VisitKind.HUGE_ZERO and not self._small(visit.frame, visit):
            # The visit goes on with a frame that no page maps, unless the split has failed.
            visit = visit._replace(frame=NONE if self._taken_away(visit) else visit.frame)
        node = self._search_stable()
        leave()
        if node is not None:
            if visit.kind in _FIXED or visit.frame in self._orphaned or not self._small(visit.frame, visit):
                self._messages.removed_from_trees.append((visit.key, 0))
            else:
                node.count += 1
                self._messages.merged.append((visit.key, node.frame, self.digest))
        elif visit.kind not in _STABLE_ONLY:
            if not self._search_unstable(visit):
                self._messages.removed_from_trees.append((visit.key, 0))
        elif visit.kind == VisitKind.STABLE_OR_ZERO and self._small(visit.frame, visit):
            self._messages.mapped_zero.append(visit.key)

    def _search_stable(self) -> NodeOfContent | None:
        """Return the stable node that a page may join."""
        node = self._find_stable(prune=self._rules.window.prune)
        if node is None or not self.nodes.has_room(node):
            return None
        if node.away:
            self.nodes.replace(node, None)
            return None
        return node

    def _search_unstable(self, visit: Visit) -> bool:
        """Merge with the page that waits, or wait; return whether the page is in a tree now."""
        other, frame = self._find_or_insert_unstable(visit), visit.frame
        if other is None:
            return True
        if self.digest == 0 and self._rules.tries is not None:
            other.look(self._rules.tries, visit.pos)
        if other.blocked or other.frame == frame or self._is_ksm(frame):
            return False
        if self._same_huge_page(visit, other) or not self._small(frame, visit):
            return False
        word = ksm_word(frame, self._rules.window.seq)
        if self._is_ksm(other.frame) or not self._small(other.frame, visit, other.key):
            self._messages.broken_out.append((visit.key, word, self.digest))
            self._orphaned.add(frame)
            return False
        self._messages.made_stable.append((visit.key, word, self.digest))
        self._messages.merged.append((other.key, word, self.digest))
        self._erase_unstable(other.key)
        self.nodes.insert(
            NodeOfContent(word, 2, origin=frame), chain=self._find_stable(prune=False) is not None
        )
        return True

    def _is_ksm(self, frame: int) -> bool:
        """Return whether a frame is a KSM frame, perhaps one without a stable node since this window."""
        return is_ksm_word(frame) or frame in self._orphaned

    # Huge pages (try_to_merge_one_page()).

    def _taken_away(self, visit: Visit) -> bool:
        """Return whether the split of its huge page has unmapped this page of zeros."""
        tries = self._rules.tries
        if tries is None or not tries.takes_one_away(visit.frame):
            return False
        return not tries.whole(visit.frame, visit.pos)

    def _small(self, frame: int, visit: Visit, key: int | None = None) -> bool:
        """Split the huge page of a frame, if it is part of one; return whether the page is mapped by itself.

        `key` is that of the frame's page, if that is not the page visited.
        """
        tries = self._rules.tries
        if frame < 0:
            return False
        if tries is None or not tries.whole(frame, visit.pos):
            return True
        split = tries.split(frame, visit.key if key is None else key, visit.pos)
        return split and not (self.digest == 0 and tries.takes_one_away(frame))

    def _same_huge_page(self, visit: Visit, other: UnstablePage) -> bool:
        """Return whether both pages are of one huge page, which is split then without a merge."""
        tries, frame = self._rules.tries, visit.frame
        if tries is None or not is_huge_word(frame) or not is_huge_word(other.frame):
            return False
        if block_of(frame) != block_of(other.frame) or not tries.whole(frame, visit.pos):
            return False
        tries.self_pairs += 1
        tries.split(frame, visit.key, visit.pos)
        return True

    # Stable nodes that have migrated.

    def _visit_migrated(self, visit: Visit) -> None:
        """Decide a visit to a page whose KSM frame is not, or was not, in the tree of its node."""
        nodes = self.nodes
        away = next((node for node in nodes.in_tree if node.frame == visit.frame and node.away), None)
        if away is not None:
            nodes.replace(away, None)
            return
        added = visit.kind in _ADDED
        node = next((node for node in nodes.migrating if node.frame == visit.frame), None)
        if node is None:
            self._append_to_linked(visit, added)
            return
        found = self._insert_migrated(node)
        if found is node and added:
            return
        node.count -= added
        if found is node:
            node.count += 1
            self._messages.added_to_stable.append((visit.key, 0))
        elif found is not None:
            self._messages.removed_from_trees.append((visit.key, 0))
        elif self._checksum_changed(visit) or not self._search_unstable(visit):
            self._messages.removed_from_trees.append((visit.key, int(self._checksum_changed(visit))))

    def _checksum_changed(self, visit: Visit) -> bool:
        return not self._rules.profile.checksum_first and visit.kind in _CHANGED

    def _append_to_linked(self, visit: Visit, added: bool) -> None:
        node = self.nodes.by_frame(visit.frame)
        if node is not None and not added:
            node.count += 1
            self._messages.added_to_stable.append((visit.key, 0))

    def _insert_migrated(self, node: NodeOfContent) -> NodeOfContent | None:
        """Search the tree of a migrated stable node's new node for its content, and insert it there.

        Returns the stable node that the page may share, perhaps its own; none if that is full.
        """
        nodes = self.nodes
        there = self._find_stable(prune=self._rules.window.prune)
        if there is None:
            nodes.settle(node, chain=False)
        elif self._rules.profile.chains and self._rules.mapcount(node.frame & PFN_MASK) > 1:
            nodes.settle(node, chain=True)
        elif not nodes.has_room(there):
            return None
        elif there.away:
            nodes.replace(there, node)
        else:
            return there
        return node if nodes.has_room(node) else None
