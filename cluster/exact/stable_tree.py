"""The stable trees: KSM pages by content, chains of dups, and the list of migrated stable nodes.

Source of the rules: `stable_tree_search`, `stable_tree_insert`, `stable_node_dup` and `ksm_get_folio` in
`mm/ksm.c`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.arrays.rbtree import LEFT, RIGHT, RbTree
from cluster.exact.objects import Chain, Frame, Place, StableNode
from cluster.exact.reason import Reason
from cluster.spec.knobs import Counters, KnobValues
from cluster.spec.profile import Profile

Entry = StableNode | Chain
Tree = RbTree[Entry]


@dataclass(slots=True)
class WalkEnd:
    """Where a walk down a tree ended: at a stable node of the content, or at a free place."""

    entry: Entry | None
    dup: StableNode | None
    parent: Entry | None
    side: int


class StableTrees:
    """One stable tree or, with merge_across_nodes=0, one for each node."""

    def __init__(
        self, profile: Profile, knobs: KnobValues, counters: Counters, nodes: int, reasons: set[Reason]
    ) -> None:
        """Start with empty trees. `reasons` gets STALE_STABLE if a search depends on the shape."""
        self._profile = profile
        self._knobs = knobs
        self._counters = counters
        self._reasons = reasons
        self._trees: list[Tree] = [RbTree() for _ in range(nodes)]
        #: newest first
        self._migrate_nodes: list[StableNode] = []
        #: simulated time, for the pruning of chains
        self.now_ms = 0

    def nid_of(self, frame: Frame) -> int:
        """Return the number of the tree that a frame belongs to now (get_kpfn_nid)."""
        return 0 if self._knobs.merge_across_nodes else frame.node

    def live_frame(self, node: StableNode) -> Frame | None:
        """Return the frame of a stable node (ksm_get_folio).

        If the frame was freed, remove the node and return None.
        """
        if node.frame.stable_node is node:
            return node.frame
        self._remove(node)
        return None

    def has_room(self, node: StableNode, offset: int = 0) -> bool:
        """Return whether there is room for `offset` more sharers and one (is_page_sharing_candidate)."""
        if not self._profile.chains:
            return True
        return 0 < len(node.items) < self._knobs.max_page_sharing - offset

    def search(self, frame: Frame) -> Frame | None:
        """Return the KSM frame that a page may share, perhaps its own, or None (stable_tree_search).

        If the frame is a KSM frame that migrated, also insert it into the tree of its new node.
        """
        moved = frame.stable_node
        if moved is not None and moved.place is not Place.MIGRATE:
            return frame
        nid = self.nid_of(frame)
        tree = self._trees[nid]
        walk = self._walk(tree, frame.key, prune=True)
        if walk.entry is None or walk.dup is None:
            if moved is None:
                return None
            self._take_from_migrated(moved, nid)
            moved.place = Place.TREE
            tree.insert(moved, walk.parent, walk.side)
            return self._frame_with_room(moved)
        if moved is not None and self._profile.chains and len(frame.ptes) > 1:
            return self._join_as_dup(tree, walk.entry, moved, nid)
        if not self.has_room(walk.dup):
            return None
        if self.nid_of(walk.dup.frame) != walk.dup.nid:
            return self._replace_migrated(tree, walk.entry, walk.dup, moved)
        return walk.dup.frame

    def insert(self, frame: Frame) -> StableNode:
        """Insert a stable node for a frame that has just become a KSM page (stable_tree_insert)."""
        nid = self.nid_of(frame)
        tree = self._trees[nid]
        walk = self._walk(tree, frame.key, prune=False)
        node = StableNode(frame, nid)
        if walk.entry is None:
            tree.insert(node, walk.parent, walk.side)
        else:
            self._add_dup(node, self._chain_at(tree, walk.entry))
        frame.stable_node = node
        return node

    def unlink_migrated(self, node: StableNode) -> None:
        """Move a stable node to the list of migrated ones if its frame is on another node now."""
        if node.place is not Place.MIGRATE and self.nid_of(node.frame) != node.nid:
            self._unlink(node)
            self._list_as_migrated(node)

    def drop_stale_migrated(self) -> None:
        """Remove migrated stable nodes whose frames were freed."""
        for node in list(self._migrate_nodes):
            self.live_frame(node)

    def remove_all(self) -> bool:
        """Remove stable nodes without mappings; return False if any remain (remove_all_stable_nodes)."""
        emptied = [self._empty(tree) for tree in self._trees]
        moved = [self._remove_unmapped(node) for node in list(self._migrate_nodes)]
        if not all(emptied) and self._counters.stable_node_chains:
            # which chains remain depends on what stood above them in the tree
            self._reasons.add(Reason.STALE_STABLE)
        return all(emptied) and all(moved)

    def _walk(self, tree: Tree, key: int, *, prune: bool) -> WalkEnd:
        parent: Entry | None = None
        side = LEFT
        entry = tree.root
        while entry is not None:
            passing = _key_of(entry) != key
            picked = self._pick_in_passing(tree, entry, prune) if passing else self._pick(tree, entry, prune)
            if picked is None:
                # a stale node was erased, so the tree may have another shape: start again at the root
                parent, entry = None, tree.root
                continue
            entry, dup = picked
            if key == dup.frame.key:
                return WalkEnd(entry, dup, parent, side)
            side = LEFT if key < dup.frame.key else RIGHT
            parent, entry = entry, tree.child(entry, side)
        return WalkEnd(None, None, parent, side)

    def _pick_in_passing(self, tree: Tree, entry: Entry, prune: bool) -> tuple[Entry, StableNode] | None:
        """Pick at an entry of another content; if that changes it, the result depends on the shape."""
        before = _contents_of(entry)
        picked = self._pick(tree, entry, prune)
        freed = picked is None and isinstance(entry, Chain)
        if freed or _contents_of(entry) != before:
            self._reasons.add(Reason.STALE_STABLE)
        return picked

    def _pick(self, tree: Tree, entry: Entry, prune: bool) -> tuple[Entry, StableNode] | None:
        """Return the entry that stands there after pruning, and its best stable node; None if it is gone.

        Models chain() and chain_prune().
        """
        if isinstance(entry, StableNode):
            return None if self.live_frame(entry) is None else (entry, entry)
        chain = entry
        due = prune and self._prune_due(chain)
        found = self._best_dup(chain, every=due)
        if found is None:
            self._free_chain(tree, chain)
            return None
        single = len(chain.dups) == 1
        if single and (self._profile.collapse_always or (due and self.has_room(found))):
            self._collapse(tree, chain, found)
            return found, found
        if chain.dups[0] is not found and self.has_room(found, 1):
            # move it to the front, where the next search without pruning finds it at once
            chain.dups.remove(found)
            chain.dups.insert(0, found)
        return chain, found

    def _prune_due(self, chain: Chain) -> bool:
        if self.now_ms < chain.prune_time + self._knobs.stable_node_chains_prune_millisecs:
            return False
        chain.prune_time = self.now_ms
        return True

    def _best_dup(self, chain: Chain, *, every: bool) -> StableNode | None:
        """Return the first dup with room, or with `every` the fullest with room (stable_node_dup).

        Without room in any, it is the first dup.
        """
        found: StableNode | None = None
        for dup in list(chain.dups):
            if self.live_frame(dup) is None:
                continue
            if found is None or self._better(dup, found):
                found = dup
                if not every and self.has_room(found):
                    break
        return found

    def _better(self, dup: StableNode, found: StableNode) -> bool:
        return self.has_room(dup) and (not self.has_room(found) or len(dup.items) > len(found.items))

    def _collapse(self, tree: Tree, chain: Chain, only: StableNode) -> None:
        self._drop_dup(only)
        only.place = Place.TREE
        tree.replace(chain, only)
        self._counters.stable_node_chains -= 1

    def _free_chain(self, tree: Tree, chain: Chain) -> None:
        tree.erase(chain)
        self._counters.stable_node_chains -= 1

    def _chain_at(self, tree: Tree, entry: Entry) -> Chain:
        """Return the chain at a place of the tree; make one around the stable node there if it has none."""
        if isinstance(entry, Chain):
            return entry
        chain = Chain(_key_of(entry), self.now_ms)
        self._counters.stable_node_chains += 1
        tree.replace(entry, chain)
        self._add_dup(entry, chain)
        return chain

    def _add_dup(self, node: StableNode, chain: Chain) -> None:
        node.place = Place.DUP
        node.chain = chain
        chain.dups.insert(0, node)
        self._counters.stable_node_dups += 1

    def _drop_dup(self, node: StableNode) -> None:
        assert node.chain is not None
        node.chain.dups.remove(node)
        node.chain = None
        self._counters.stable_node_dups -= 1

    def _join_as_dup(self, tree: Tree, entry: Entry, moved: StableNode, nid: int) -> Frame | None:
        """Make a migrated node a dup of the stable node with its content in the tree of its new node."""
        chain = self._chain_at(tree, entry)
        self._take_from_migrated(moved, nid)
        self._add_dup(moved, chain)
        return self._frame_with_room(moved)

    def _replace_migrated(
        self, tree: Tree, entry: Entry, dup: StableNode, moved: StableNode | None
    ) -> Frame | None:
        """List `dup`, which has migrated away, and give its place to `moved`, if any."""
        if isinstance(entry, Chain):
            self._drop_dup(dup)
            if moved is not None:
                self._take_from_migrated(moved, dup.nid)
                self._add_dup(moved, entry)
        elif moved is not None:
            self._take_from_migrated(moved, dup.nid)
            moved.place = Place.TREE
            tree.replace(dup, moved)
        else:
            tree.erase(dup)
        self._list_as_migrated(dup)
        return None if moved is None else self._frame_with_room(moved)

    def _frame_with_room(self, node: StableNode) -> Frame | None:
        return node.frame if self.has_room(node) else None

    def _list_as_migrated(self, node: StableNode) -> None:
        node.place = Place.MIGRATE
        self._migrate_nodes.insert(0, node)

    def _take_from_migrated(self, node: StableNode, nid: int) -> None:
        self._migrate_nodes.remove(node)
        node.nid = nid

    def _unlink(self, node: StableNode) -> None:
        match node.place:
            case Place.MIGRATE:
                self._migrate_nodes.remove(node)
            case Place.DUP:
                self._drop_dup(node)
            case Place.TREE:
                self._trees[node.nid].erase(node)

    def _remove(self, node: StableNode) -> None:
        """Remove a node and release all its sharers (remove_node_from_stable_tree)."""
        if node.items:
            self._counters.pages_shared -= 1
            self._counters.pages_sharing -= len(node.items) - 1
        for item in node.items:
            item.leave_stable_node(forget=self._profile.leaving_forgets)
            item.region.mm.merging_pages -= 1
        node.items.clear()
        self._unlink(node)

    def _remove_unmapped(self, node: StableNode) -> bool:
        frame = self.live_frame(node)
        if frame is None:
            return True
        if frame.ptes:
            return False
        frame.stable_node = None
        self._remove(node)
        return True

    def _empty(self, tree: Tree) -> bool:
        while (entry := tree.root) is not None:
            if isinstance(entry, StableNode):
                if not self._remove_unmapped(entry):
                    return False
                continue
            if not all(self._remove_unmapped(dup) for dup in list(entry.dups)):
                return False
            self._free_chain(tree, entry)
        return True


def _key_of(entry: Entry) -> int:
    return entry.frame.key if isinstance(entry, StableNode) else entry.key


def _contents_of(entry: Entry) -> int | list[StableNode]:
    """Return the number of a stable node's items, or the dups of a chain in their order."""
    return len(entry.items) if isinstance(entry, StableNode) else list(entry.dups)
