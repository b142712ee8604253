"""The stable and unstable trees' entries for the contents whose home is one node.

With merge_across_nodes=1 the machine has one tree of each kind and every content a home; with 0 each node
has trees of its own for its own frames. Tables are sorted by digest, since within a window no content changes
and each content is decided by itself; the shapes of the trees are kept for records only.

The life of a stable node:

1. `decide` makes it from the second page of a content, and `apply` inserts its row.
2. Visits add items to it and remove them (`decide` again), and RECOUNT does where bytes differ. A stable node
   keeps its row after its last item has left, with a count of 0, while its frame is mapped.
3. When the last mapping of its frame goes, the frame's node sends STALE: `on_stale` removes the row if it has
   no items and is no dup, and marks it as dead otherwise.
4. A dead stable node goes when a search meets it or an item leaves it: `decide` removes the row
   (`ContentNodes.drop`, `decide_batch`) and tells all nodes that it is DROPPED, with all items left on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.columns import distinct, is_in
from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import (
    I64,
    U8,
    Array,
    Digests,
    FrameWords,
    ItemKeys,
    empty,
    is_ksm_word,
    node_of_frame,
)
from cluster.ksm.page_updates import PageUpdates
from cluster.ksm.table_changes import Columns, TableChanges
from cluster.ksm.unstable_table import UnstableTable
from cluster.ksm.visit import Arrivals
from cluster.mm.node_state import NodeState
from cluster.spec.content import mix
from cluster.wire.mailbox import joined
from cluster.wire.messages import Kind
from cluster.wire.window import Window

if TYPE_CHECKING:
    from cluster.ksm.tree_shape import Shape


#: In place of 1 in the column `dead`, during a removal: the frame is not freed, but has no mapping.
_UNMAPPED = 2


class Trees:
    """The owner of the tables of one node's trees.

    A window changes them in `start_window` and in `apply`, and nowhere else. Between windows the handlers of
    messages (`on_...`) change them, `rename`, and the commands of run=2.
    """

    def __init__(self, node: NodeState) -> None:
        self.node = node
        #: Stable nodes: KSM frame; rmap_items; 1 if the frame has been freed; 1 if it is a dup in a chain.
        #: A search tries the stable nodes of a content in ascending `order`.
        self.stable = SortedTable(frame=np.int64, count=np.int32, dead=np.int8, dup=np.int8, order=np.int64)
        #: Chains without any dup.
        self.empty_chains = SortedTable()
        #: Stable nodes whose frames have migrated to this node, but that are in no tree of it yet (the
        #: kernel's migrate_nodes).
        self.migrating = SortedTable(frame=np.int64, count=np.int32, dead=np.int8)
        self.unstable = UnstableTable(node)
        self.shape: Shape | None = None
        if node.tree_shape:
            # Only for records; without it an actor starts sooner.
            from cluster.ksm.tree_shape import Shape

            self.shape = Shape()
        #: Less than every `order`.
        self.front = 0
        self._arrived: list[tuple[Array, ...]] = []
        #: Contents, ascending, that each window looks at again until nothing more can come of them.
        self.recheck: Digests = empty(np.uint64)
        #: Grows with every change that `counts` depends on.
        self.version = 0
        self._counts: tuple[int, I64, I64, int, int] = (-1, empty(), empty(), 0, 0)

    @property
    def busy(self) -> bool:
        """Return whether a window may change something here even if nothing arrives."""
        return self.shape is not None or len(self.recheck) > 0 or bool(self.migrating["dead"].any())

    # A window.

    def start_window(self, window: Window) -> None:
        """Bring tables and shapes to the state that the searches of this window start from."""
        shape = self.shape
        if window.first:
            self.unstable.forget_lost()
            self._drop_stale_migrating(window)
            if shape is not None:
                shape.start_pass()
                self.unstable.remove_dirty_before(window.pass_number)
        if window.searches and shape is None:
            self._drop_stale(window)
        if shape is not None:
            self._erase_absent(shape)

    def take_arrivals(self) -> Arrivals:
        """Return the visits since the last window, and forget them."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return Arrivals(empty(np.uint64), empty(), empty(), empty(np.uint8))
        return Arrivals._make(joined(arrived))

    def apply(self, changes: TableChanges) -> None:
        """Carry out what was decided for a window."""
        if changes.empty:
            return
        self.version += 1
        for column, rows, values in changes.stable_values:
            self.stable[column][rows] = values
        tables = (
            (self.stable, changes.stable_gone, changes.stable_added),
            (self.unstable, changes.unstable_gone, changes.unstable_added),
            (self.migrating, changes.migrating_gone, changes.migrating_added),
            (self.empty_chains, changes.empty_chains_gone, changes.empty_chains_added),
        )
        for table, gone, _ in tables:
            table.remove(np.concatenate([empty(), *gone]))
        for table, _, added in tables:
            _insert(table, added)
        if len(self.unstable.lost):
            self.unstable.forget_lost([columns["digest"] for columns in changes.unstable_added])
        self.front, self.shape = changes.front, changes.shape
        self.recheck = self._to_recheck(np.concatenate([empty(np.uint64), *changes.unsettled]))

    def _to_recheck(self, digests: Digests) -> Digests:
        """Return the contents with a page in the unstable tree that the next visit could merge."""
        stable, unstable = self.stable, self.unstable
        which, row = stable.rows(digests)
        count, dup = stable["count"][row], stable["dup"][row] == 1
        useful = is_in(digests, self.empty_chains.digest)
        room = (count < self.node.limit) & ((count > 0) | (not self.node.profile.chains))
        useful[which[room | (stable["dead"][row] == 1)]] = True
        useful |= np.bincount(which[dup], minlength=len(digests)) == 1
        waiting = np.bincount(unstable.rows(digests)[0], minlength=len(digests))
        recheck: Digests = digests[(waiting > 1) | ((waiting == 1) & useful)]
        return recheck

    def _erase_absent(self, shape: Shape) -> None:
        """Erase from the shapes what has gone from the tables otherwise than by searches."""
        present = {*self.stable.digest.tolist(), *self.empty_chains.digest.tolist()}
        for digest in shape.stable_digests():
            if digest not in present:
                shape.erase_stable(digest)
        waiting = set(self.unstable["key"].tolist())
        for key in shape.unstable_keys():
            if key not in waiting:
                shape.erase_unstable(key)

    def _drop_stale(self, window: Window) -> None:
        """Remove stale stable nodes that searches for other contents have met on their way.

        Without shapes it is drawn which were met. Half of the nodes of a tree have no other below them, a
        quarter has two, and so on; a search meets a node if it ends there or below.
        """
        which, rows = self.stable.rows(self.recheck)
        stale = self.stable["dead"][rows] == 1
        which, rows = which[stale], rows[stale]
        if len(rows) == 0:
            return
        drawn = mix(self.recheck[which] ^ np.uint64(window.seq))
        lowest_bit = (drawn & (~drawn + np.uint64(1))).astype(np.float64)
        met = (drawn >> np.uint64(32)) * 2.0**-32 < -np.expm1(-window.searches * (2 * lowest_bit - 1))
        rows = rows[met]
        self._drop(self.stable, rows, rows[self.stable["count"][rows] > 0], window)

    def _drop(self, table: SortedTable, rows: I64, with_items: I64, window: Window) -> None:
        """Remove stable nodes before the window begins, and tell all nodes of those `with_items`."""
        self.version += 1
        updates = PageUpdates()
        before = np.full(len(with_items), window.low - 1) if self.node.leaving_ends_age else None
        updates.drop_nodes(table["frame"][with_items], before)
        updates.send(self.node.out, self.node.nodes)
        table.remove(rows)

    def _drop_stale_migrating(self, window: Window) -> None:
        """At the start of a pass, forget migrated stable nodes whose frames were freed."""
        rows = np.flatnonzero(self.migrating["dead"])
        frames = self.migrating["frame"][rows].tolist()
        dead = rows[[self.node.migrated_stable_nodes.tree_of(frame) == -1 for frame in frames]]
        if len(dead):
            self._drop(self.migrating, dead, dead, window)

    # What nodes tell.

    def on_event(self, digests: Digests, keys: ItemKeys, frames: FrameWords, kinds: U8) -> None:
        """Keep visits for the next window."""
        self._arrived.append((digests, keys, frames, kinds))

    def on_stale(self, digests: Digests, frames: FrameWords) -> None:
        """Remove stable nodes of freed frames if they have no items and are no dups; mark others as dead.

        A dead stable node goes when a search meets it or an item leaves it. While the shapes of trees are
        kept, no row is removed here.
        """
        self.version += 1
        for table in (self.stable, self.migrating):
            rows = table.find(digests, "frame", frames)
            table["dead"][rows[rows >= 0]] = 1
        rows = self.stable.find(digests, "frame", frames)
        rows = rows[rows >= 0]
        # No count includes a stable node without items that is no dup.
        unused = (self.stable["count"][rows] == 0) & (self.stable["dup"][rows] == 0) & (self.shape is None)
        self.recheck = np.union1d(self.recheck, self.stable.digest[rows[~unused]])
        self.stable.remove(rows[unused])

    def on_recount(self, digests: Digests, frames: FrameWords, change: I64) -> None:
        """Add to the numbers of items of stable nodes."""
        self.version += 1
        rows = self.stable.find(digests, "frame", frames)
        np.add.at(self.stable["count"], rows[rows >= 0], change[rows >= 0].astype(np.int32))

    def rename(self, old: FrameWords, new: FrameWords, digests: Digests) -> None:
        """Follow frames that have been migrated (ksm_migrate_page()).

        With merge_across_nodes=0 a frame may have left the node whose tree has it. Its stable node stays
        there until a search meets it; the frame's new node gets a copy as a migrating stable node.
        """
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

    def _send_migrating(self, table: SortedTable, rows: I64, frames: FrameWords) -> None:
        about = table.digest[rows], frames, table["count"][rows], table["dead"][rows]
        self.node.out.send(Kind.MIGRATING, node_of_frame(frames), *about)

    def on_migrating(self, digests: Digests, frames: FrameWords, counts: I64, dead: I64) -> None:
        """Keep stable nodes whose frames came to this node, unless its tree has them still."""
        self.version += 1
        new = self.stable.find(digests, "frame", frames) < 0
        order = np.argsort(digests[new], kind="stable")
        columns = {"frame": frames, "count": counts, "dead": dead}
        self.migrating.insert(digests[new][order], **{k: v[new][order] for k, v in columns.items()})

    def on_dropped(self, frames: FrameWords) -> None:
        """Remove what these tables have of stable nodes that another node dropped after a migration."""
        if self.node.migrated_stable_nodes:
            self.version += 1
            for table in (self.stable, self.migrating):
                table.remove(np.flatnonzero(np.isin(table["frame"], frames)))

    # Statistics.

    def counts(self) -> tuple[I64, I64, int, int]:
        """Return pages_shared and pages_sharing, stable_node_chains and stable_node_dups.

        The first two are int64[nodes], by the node of the frame.
        """
        if self._counts[0] != self.version:
            stable, migrating = self.stable, self.migrating
            here = ~self.node.away(stable["frame"])
            nodes = node_of_frame(np.concatenate([stable["frame"][here], migrating["frame"]]))
            items = np.concatenate([stable["count"][here], migrating["count"]])
            size = self.node.nodes
            shared = np.bincount(nodes[items > 0], minlength=size)
            total = np.bincount(nodes, items, size).astype(np.int64)
            dup = stable["dup"] == 1
            chains = len(distinct(stable.digest[dup])) + len(self.empty_chains)
            self._counts = (self.version, shared, total - shared, chains, int(np.count_nonzero(dup)))
        return self._counts[1:]

    # run=2.

    def on_unmapped(self, digests: Digests, frames: FrameWords) -> None:
        """Mark stable nodes that the next removal takes although their frames are not freed."""
        for table in (self.stable, self.migrating):
            rows = table.find(digests, "frame", frames)
            rows = rows[rows >= 0]
            table["dead"][rows] = np.where(table["dead"][rows] == 0, _UNMAPPED, table["dead"][rows])

    def remove_unmapped(self) -> bool:
        """Remove stable nodes without mappings; return whether others are left.

        Models remove_all_stable_nodes().
        """
        self.version += 1
        before = self._unmapped()
        if self.shape is None:
            self.stable.remove(np.flatnonzero(self.stable["dead"]))
            self.empty_chains.remove(np.arange(len(self.empty_chains)))
        else:
            self._remove_from_top(self.shape)
        self.migrating.remove(np.flatnonzero(self.migrating["dead"]))
        left = self._unmapped()
        updates = PageUpdates()
        updates.orphan_frames(before[~np.isin(before, left)])
        updates.send(self.node.out, self.node.nodes)
        for table in (self.stable, self.migrating):
            table["dead"][table["dead"] == _UNMAPPED] = 0
        return len(self.stable) + len(self.migrating) > 0

    def _unmapped(self) -> FrameWords:
        """Return frames of stable nodes without mappings that are in swap caches."""
        tables = (self.stable, self.migrating)
        return np.concatenate([table["frame"][table["dead"] == _UNMAPPED] for table in tables])

    def _remove_from_top(self, shape: Shape) -> None:
        """Remove the topmost content of the tree again and again; stop at the first that is mapped."""
        self._erase_absent(shape)
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
            shape.erase_stable(top.digest)

    def forget_items(self) -> None:
        """Remove all rmap_items, and with them the stable nodes whose frames had been freed."""
        self.version += 1
        chains = np.unique(self.stable.digest[self.stable["dup"] == 1])
        for table in (self.stable, self.migrating):
            table.remove(np.flatnonzero((table["dead"] == 1) & (table["count"] > 0)))
            table["count"][:] = 0
        self.empty_chains.insert(chains[~np.isin(chains, self.stable.digest)])
        self.unstable.remove(np.arange(len(self.unstable)))
        self.unstable.forget_lost()
        self.recheck = empty(np.uint64)


def _insert(table: SortedTable, parts: list[Columns]) -> None:
    """Add rows to a table in one go."""
    parts = [part for part in parts if len(part["digest"])]
    if not parts:
        return
    names = ("digest", *table.columns)
    columns = dict(zip(names, joined([tuple(part[name] for name in names) for part in parts]), strict=True))
    digests = columns.pop("digest")
    if (digests[1:] < digests[:-1]).any():
        order = np.argsort(digests, kind="stable")
        digests = digests[order]
        columns = {name: values[order] for name, values in columns.items()}
    table.insert(digests, **columns)
