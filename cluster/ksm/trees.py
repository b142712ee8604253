"""The stable and unstable trees' entries for the contents whose home is one node.

With merge_across_nodes=1 the machine has one tree of each kind and every content a home; with 0 each node
has trees of its own for its own frames. The unstable tree is kept from pass to pass: which of its pages
ksmd has inserted in the current pass follows from the scan position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import I64, U8, U64, Bool, empty, is_ksm_word, node_of_frame
from cluster.ksm.effects import Effects
from cluster.mm.node_state import NodeState
from cluster.wire.messages import Kind

if TYPE_CHECKING:
    from cluster.ksm.tree_shape import Shape


#: In place of 1 in the column `dead`, during a removal: the frame is there, but nobody maps it.
_UNMAPPED = 2


@dataclass(slots=True)
class Arrived:
    """Events as they came: digest, item key, frame, kind."""

    digest: U64
    key: I64
    frame: I64
    kind: U8


class Trees:
    def __init__(self, node: NodeState) -> None:
        self.node = node
        #: Stable nodes: KSM frame; rmap_items; 1 if the frame has been freed; 1 if it is a dup in a chain.
        #: The stable nodes of a content are tried in ascending `order`.
        self.stable = SortedTable(frame=np.int64, count=np.int32, dead=np.int8, dup=np.int8, order=np.int64)
        #: Chains without any dup.
        self.empty_chains = SortedTable()
        #: Stable nodes whose frames have migrated to this node, but that are in no tree of it yet.
        self.migrating = SortedTable(frame=np.int64, count=np.int32, dead=np.int8)
        self.shape: Shape | None = None
        #: Pages that wait: item key; frame or, if the page went after ksmd had put it in, ~pass in which it
        #: did. With a shape also the pass in which it changed or went, or 0, and what it holds now; else it
        #: goes if it changes.
        self.unstable = SortedTable(key=np.int64, frame=np.int64)
        if node.tree_shape:
            # Only for records; without it an actor starts sooner.
            from cluster.ksm.tree_shape import Shape

            self.shape = Shape()
            self.unstable = SortedTable(key=np.int64, frame=np.int64, dirty=np.int32, holds=np.int64)
        #: Less than every `order`.
        self.front = 0
        self._arrived: list[tuple[U64, I64, I64, U8]] = []
        #: Contents that are looked at again in every window until they drop out.
        self.recheck: U64 = empty(np.uint64)
        #: Grows with every change that `counts` depends on.
        self.version = 0
        self._counts: tuple[int, I64, I64, int, int] = (-1, empty(), empty(), 0, 0)

    @property
    def busy(self) -> bool:
        """Whether a window may change something here even if nothing arrives."""
        return self.shape is not None or len(self.recheck) > 0 or bool(self.migrating["dead"].any())

    # What nodes tell.

    def on_event(self, digests: U64, keys: I64, frames: I64, kinds: U8) -> None:
        self._arrived.append((digests, keys, frames, kinds))

    def arrived(self) -> Arrived:
        """The events since the last window."""
        arrived, self._arrived = self._arrived, []
        if len(arrived) == 1:
            return Arrived(*arrived[0])
        none = (empty(np.uint64), empty(), empty(), empty(np.uint8))
        return Arrived(*(np.concatenate(column) for column in zip(none, *arrived, strict=True)))

    def on_withdraw(self, digests: U64, keys: I64) -> None:
        rows = self.unstable.find(digests, "key", keys)
        self.unstable.remove(rows[rows >= 0])

    def on_wait_frame(self, digests: U64, keys: I64, frames: I64) -> None:
        """Pages waiting have other frames. Those that went are in the way of searches until the pass ends."""
        rows = self.unstable.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        rows = rows[there]
        in_tree = self._in_tree(rows)
        self.unstable["frame"][rows] = frames[there]
        self._set_dirty(rows, self._changed(rows), in_tree)

    def on_wait_content(self, digests: U64, keys: I64, holds: U64) -> None:
        """Pages waiting have changed, or are what they were again."""
        rows = self.unstable.find(digests, "key", keys)
        there = np.flatnonzero(rows >= 0)
        rows, changed = rows[there], holds[there] != digests[there]
        if self.shape is None:
            same = rows[np.flatnonzero(~changed)]
            self._set_dirty(same, np.zeros(len(same), np.bool_), self._in_tree(same))
            self.unstable.remove(rows[np.flatnonzero(changed)])
        else:
            self.unstable["holds"][rows] = holds[there].view(np.int64)
            self._set_dirty(rows, self._changed(rows), self._in_tree(rows))

    def dirty(self, rows: I64) -> I64:
        """The pass in which waiting pages changed or went after ksmd had put them in, or 0."""
        if self.shape is None:
            return np.maximum(~self.unstable["frame"][rows], 0)
        dirty: I64 = self.unstable["dirty"][rows]
        return dirty

    def _in_tree(self, rows: I64) -> Bool:
        """Which waiting pages ksmd has put in in the pass under way."""
        passed = self.node.passed(self.unstable["key"][rows])
        in_tree: Bool = (self.dirty(rows) == self.node.window.pass_number) | passed
        return in_tree

    def _changed(self, rows: I64) -> Bool:
        """Which waiting pages hold something else by now."""
        if self.shape is None:
            return np.zeros(len(rows), np.bool_)
        changed: Bool = self.unstable["holds"][rows] != self.unstable.digest[rows].view(np.int64)
        return changed

    def _set_dirty(self, rows: I64, changed: Bool, in_tree: Bool) -> None:
        """Pages that are not as they were are only of interest in the tree of the pass under way."""
        unstable, current = self.unstable, self.node.window.pass_number
        gone = unstable["frame"][rows] < 0
        dirty = changed | gone
        if self.shape is None:
            unstable["frame"][rows[gone]] = ~current
        else:
            unstable["dirty"][rows] = np.where(dirty, current, 0)
        unstable.remove(rows[dirty & ~in_tree])

    def on_stale(self, digests: U64, frames: I64) -> None:
        self.version += 1
        for table in (self.stable, self.migrating):
            rows = table.find(digests, "frame", frames)
            table["dead"][rows[rows >= 0]] = 1
        rows = self.stable.find(digests, "frame", frames)
        rows = rows[rows >= 0]
        # A stable node of its own without items counts nowhere.
        unseen = (self.stable["count"][rows] == 0) & (self.stable["dup"][rows] == 0) & (self.shape is None)
        self.recheck = np.union1d(self.recheck, self.stable.digest[rows[~unseen]])
        self.stable.remove(rows[unseen])

    def on_recount(self, digests: U64, frames: I64, change: I64) -> None:
        self.version += 1
        rows = self.stable.find(digests, "frame", frames)
        np.add.at(self.stable["count"], rows[rows >= 0], change[rows >= 0].astype(np.int32))

    def rename(self, old: I64, new: I64, digests: U64) -> None:
        """Frames have been migrated; with merge_across_nodes=0 perhaps away from their trees."""
        self.version += 1
        ksm = is_ksm_word(old)
        old, new, digests = old[ksm], new[ksm], digests[ksm]
        rows = self.stable.find(digests, "frame", old)
        there = rows >= 0
        self.stable["frame"][rows[there]] = new[there]
        leaving = there & self.node.away(new) & ~self.node.away(old)
        self._send_migrating(self.stable, rows[leaving], new[leaving])
        rows = self.migrating.find(digests, "frame", old)
        self._send_migrating(self.migrating, rows[rows >= 0], new[rows >= 0])
        self.migrating.remove(rows[rows >= 0])

    def _send_migrating(self, table: SortedTable, rows: I64, frames: I64) -> None:
        about = table.digest[rows], frames, table["count"][rows], table["dead"][rows]
        self.node.out.send(Kind.MIGRATING, node_of_frame(frames), *about)

    def on_migrating(self, digests: U64, frames: I64, counts: I64, dead: I64) -> None:
        """A node that comes back to the tree that it has not left yet is there already."""
        self.version += 1
        new = self.stable.find(digests, "frame", frames) < 0
        order = np.argsort(digests[new], kind="stable")
        columns = {"frame": frames, "count": counts, "dead": dead}
        self.migrating.insert(digests[new][order], **{k: v[new][order] for k, v in columns.items()})

    def on_dropped(self, frames: I64) -> None:
        """What other nodes have of these stable nodes, whose frames had migrated, goes too."""
        if self.node.migrated_stable_nodes:
            self.version += 1
            for table in (self.stable, self.migrating):
                table.remove(np.flatnonzero(np.isin(table["frame"], frames)))

    # What is asked.

    def counts(self) -> tuple[I64, I64, int, int]:
        """pages_shared and pages_sharing by node of the frame, stable_node_chains and stable_node_dups."""
        if self._counts[0] != self.version:
            stable, migrating = self.stable, self.migrating
            here = ~self.node.away(stable["frame"])
            nodes = node_of_frame(np.concatenate([stable["frame"][here], migrating["frame"]]))
            items = np.concatenate([stable["count"][here], migrating["count"]])
            size = self.node.nodes
            shared = np.bincount(nodes[items > 0], minlength=size)
            total = np.bincount(nodes, items, size).astype(np.int64)
            dup = stable["dup"] == 1
            chains = len(np.unique(stable.digest[dup])) + len(self.empty_chains)
            self._counts = (self.version, shared, total - shared, chains, int(np.count_nonzero(dup)))
        return self._counts[1:]

    def on_unmapped(self, digests: U64, frames: I64) -> None:
        """Stable nodes that the next removal takes though their frames are still there."""
        for table in (self.stable, self.migrating):
            rows = table.find(digests, "frame", frames)
            rows = rows[rows >= 0]
            table["dead"][rows] = np.where(table["dead"][rows] == 0, _UNMAPPED, table["dead"][rows])

    def remove_unmapped(self) -> bool:
        """Removes stable nodes without mappings; tells if others are left (remove_all_stable_nodes())."""
        self.version += 1
        before = self._unmapped()
        if self.shape is None:
            self.stable.remove(np.flatnonzero(self.stable["dead"]))
            self.empty_chains.remove(np.arange(len(self.empty_chains)))
        else:
            self._remove_from_top(self.shape)
        self.migrating.remove(np.flatnonzero(self.migrating["dead"]))
        left = self._unmapped()
        Effects(self.node).orphan(before[~np.isin(before, left)])
        for table in (self.stable, self.migrating):
            table["dead"][table["dead"] == _UNMAPPED] = 0
        return len(self.stable) + len(self.migrating) > 0

    def _unmapped(self) -> I64:
        """Frames of stable nodes that nobody maps, but that are in swap caches."""
        tables = (self.stable, self.migrating)
        return np.concatenate([table["frame"][table["dead"] == _UNMAPPED] for table in tables])

    def _remove_from_top(self, shape: Shape) -> None:
        """Takes the topmost content of the tree again and again, and stops at the first that is mapped."""
        self.follow(shape)
        stable = self.stable
        while (top := shape.stable.root) is not None:
            digests = np.array([top.digest], np.uint64)
            _, rows = stable.rows(digests)
            rows = rows[np.argsort(stable["order"][rows])]
            mapped = np.flatnonzero(stable["dead"][rows] == 0)
            stable.remove(rows[: mapped[0]] if len(mapped) else rows)
            if len(mapped):
                return
            self.empty_chains.remove(self.empty_chains.rows(digests)[1])
            shape.uproot(top.digest)

    def forget_items(self) -> None:
        """All rmap_items are gone (run=2), and with them the stable nodes whose frames had been freed."""
        self.version += 1
        chains = np.unique(self.stable.digest[self.stable["dup"] == 1])
        for table in (self.stable, self.migrating):
            table.remove(np.flatnonzero((table["dead"] == 1) & (table["count"] > 0)))
            table["count"][:] = 0
        self.empty_chains.insert(chains[~np.isin(chains, self.stable.digest)])
        self.unstable.remove(np.arange(len(self.unstable)))
        self.recheck = empty(np.uint64)

    def follow(self, shape: Shape) -> None:
        """Contents and waiting pages that have gone from the tables otherwise than by searches go from the
        trees."""
        present = {*self.stable.digest.tolist(), *self.empty_chains.digest.tolist()}
        for digest in shape.others(present):
            shape.uproot(digest)
        waiting = set(self.unstable["key"].tolist())
        for key in shape.perched():
            if key not in waiting:
                shape.take(key)

    def drop_gone(self, pass_number: int) -> None:
        """At the start of a pass, with a shape: what changed or went in an earlier one is in no tree."""
        dirty = self.unstable["dirty"]
        self.unstable.remove(np.flatnonzero((dirty != 0) & (dirty < pass_number)))

    def drop_stale_migrating(self) -> None:
        """At the start of a pass, migrated stable nodes whose frames were freed are forgotten."""
        rows = np.flatnonzero(self.migrating["dead"])
        frames = self.migrating["frame"][rows].tolist()
        dead = rows[[self.node.migrated_stable_nodes.tree_of(frame) == -1 for frame in frames]]
        if len(dead):
            self.version += 1
            Effects(self.node).drop(self.migrating["frame"][dead])
            self.migrating.remove(dead)

    def in_the_way(self, rows: I64) -> Bool:
        """Which waiting pages end a search without a result: they went, or left for another node's tree."""
        frames = self.unstable["frame"][rows]
        away: Bool = (frames < 0) | self.node.away(frames)
        return away
