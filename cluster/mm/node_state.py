"""What one NUMA node is made of, shared by the modules that change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cluster.arrays.columns import changes
from cluster.arrays.words import (
    I64,
    MAX_MMS_PER_NODE,
    MM_INDEX_BITS,
    U64,
    VPN_BITS,
    Array,
    Bool,
    is_ksm_word,
    mm_of_key,
    node_of_frame,
    on_node,
    scramble,
)
from cluster.mm.frames import Frames
from cluster.mm.page_table import PageTable
from cluster.mm.swap import Swap
from cluster.mm.vma import AddressSpaces
from cluster.spec.digest import Contents
from cluster.spec.profile import PROFILES, Profile
from cluster.spec.scenario import KsmSpec
from cluster.wire.mailbox import Outbox
from cluster.wire.messages import Kind
from cluster.wire.window import END, Window

#: More rmap_items than any stable node has.
NO_LIMIT = 1 << 30


class Broken:
    """Items that hang on a stable node although their page was broken out."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing hangs anywhere any more."""
        self._slots: I64 = np.empty(0, np.int64)
        self._frames: I64 = np.empty(0, np.int64)
        self._digests: U64 = np.empty(0, np.uint64)
        self._added: list[tuple[I64, I64, U64]] = []

    def add(self, slots: I64, frames: I64, digests: U64) -> None:
        """The stable nodes are named by their frames and digests."""
        if len(slots):
            self._added.append((slots, frames, digests))

    def _join(self) -> None:
        if self._added:
            parts = [(self._slots, self._frames, self._digests), *self._added]
            slots, frames, digests = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(slots)
            self._slots, self._frames, self._digests = slots[order], frames[order], digests[order]
            self._added = []

    def _drop(self, gone: Bool) -> None:
        self._slots, self._frames, self._digests = (
            self._slots[~gone],
            self._frames[~gone],
            self._digests[~gone],
        )

    def take(self, wanted: I64) -> tuple[I64, U64]:
        """Frames and digests of these slots, which must all be here; they are forgotten."""
        self._join()
        at = np.searchsorted(self._slots, wanted)
        frames, digests = self._frames[at], self._digests[at]
        gone = np.zeros(len(self._slots), np.bool_)
        gone[at] = True
        self._drop(gone)
        return frames, digests

    def take_frames(self, dropped: I64) -> I64:
        """Slots of the items that hang on these frames; they are forgotten."""
        self._join()
        gone = np.isin(self._frames, dropped)
        slots = self._slots[gone]
        self._drop(gone)
        return slots

    def frames_of(self, slots: I64) -> I64:
        """Frames of these slots; -1 of those that are not here."""
        self._join()
        if len(self._slots) == 0:
            return np.full(len(slots), -1)
        at = np.minimum(np.searchsorted(self._slots, slots), len(self._slots) - 1)
        return np.where(self._slots[at] == slots, self._frames[at], -1)

    def rename(self, old: I64, new: I64) -> None:
        """Frames have been migrated."""
        self._join()
        self._frames = renamed(self._frames, old, new)


def renamed(words: I64, old: I64, new: I64) -> I64:
    """`words` with every old[i] replaced by new[i]."""
    order = np.argsort(old)
    at = order[np.minimum(np.searchsorted(old, words, sorter=order), len(old) - 1)]
    return np.where(old[at] == words, new[at], words)


@dataclass
class NodeState:
    """The frames and processes of one node, its outbox and its counters."""

    id: int
    nodes: int
    frames: Frames
    #: int64[nodes, nodes].
    distance: Array
    knobs: KsmSpec
    contents: Contents
    out: Outbox
    tree_shape: bool
    table: PageTable = field(init=False)
    spaces: AddressSpaces = field(init=False)
    broken: Broken = field(default_factory=Broken)
    swap: Swap = field(init=False)
    #: With merge_across_nodes=0: KSM frames that have migrated and that the tree of their node does not have
    #: yet, and the node whose tree has them, -1 for none.
    migrated_stable_nodes: dict[int, int] = field(default_factory=dict)
    #: KSM frames without a stable node that this node's processes map or have in swap.
    orphans: set[int] = field(default_factory=set)
    #: Sequence number of the migration that is under way.
    migration_seq: int = 0
    #: Up to where ksmd has come in the pass that is under way.
    window: Window = field(default_factory=lambda: Window(0))
    #: Totals since the start, by name of `cluster.spec.statistics`.
    counters: Counter[str] = field(default_factory=Counter)
    #: int64[nodes, n]: rank in ksmd's list of the n-th mm of each node.
    ranks: I64 = field(init=False)
    #: Grows with every change to the page tables.
    version: int = 0

    def __post_init__(self) -> None:
        self.table = PageTable()
        self.spaces = AddressSpaces(self.table)
        self.swap = Swap(with_bytes=self.contents.with_bytes)
        self.ranks = np.full((self.nodes, 1), -1)
        self.set_knobs(self.knobs)

    def set_knobs(self, knobs: KsmSpec) -> None:
        """The page table has the columns that these knobs need."""
        self.knobs = knobs
        if knobs.smart_scan:
            self.table.keep("age", "remaining_skips")
        if not self.homes_follow:
            self.table.keep("home")

    @cached_property
    def zonelists(self) -> I64:
        """Row i: all nodes, nearest to node i first (build_zonelists())."""
        return np.argsort(self.distance, axis=1, kind="stable")

    @property
    def limit(self) -> int:
        """Most rmap_items that one stable node takes."""
        return self.knobs.max_page_sharing if self.profile.chains else NO_LIMIT

    @property
    def profile(self) -> Profile:
        return PROFILES[self.knobs.kernel]

    @property
    def homes_follow(self) -> bool:
        """Whether the home of a waiting page follows from its digest: its frame may be elsewhere by now."""
        return self.knobs.merge_across_nodes == 1 and not self.tree_shape

    def home_of_frames(self, digests: U64, frames: I64) -> I64:
        """The nodes that keep the stable and unstable trees' entries of the contents of these frames."""
        if not self.knobs.merge_across_nodes:
            return node_of_frame(frames)
        if self.tree_shape:
            return np.zeros(len(digests), np.int64)
        return self._home_of(digests)

    def _home_of(self, digests: U64) -> I64:
        if self.nodes == 1:
            return np.zeros(len(digests), np.int64)
        # The scrambled digest as a fraction of the nodes: a division would take several times as long.
        return ((scramble(digests) * np.uint64(self.nodes)) >> np.uint64(32)).view(np.int64)

    def keys_of(self, slots: I64) -> I64:
        """Item keys of mapped slots."""
        index = self.spaces.index
        return index.keys(slots, index.vma_of(slots))

    def waiting(self, slots: I64) -> tuple[I64, U64, I64]:
        """Of pages that wait in unstable trees: item keys, digests, and the homes of the trees' entries."""
        digests = self.table.tree_key[slots]
        homes = self._home_of(digests) if self.homes_follow else self.table.home[slots].astype(np.int64)
        return self.keys_of(slots), digests, homes

    def send_to_trees(self, kind: Kind, homes: I64, frames: I64, *columns: Array) -> None:
        """Sends rows to the homes of these KSM frames' contents, and to nodes whose trees have the frames."""
        self.out.send(kind, homes, *columns)
        if self.migrated_stable_nodes:
            trees = np.array(
                [self.migrated_stable_nodes.get(frame, -1) for frame in frames.tolist()], np.int64
            )
            stray = trees >= 0
            self.out.send(kind, trees[stray], *(column[stray] for column in columns))

    def rename_migrated_stable_nodes(self, old: I64, new: I64) -> None:
        """Keeps track of KSM frames whose stable nodes are not in the trees of their nodes."""
        if self.knobs.merge_across_nodes:
            return
        ksm = is_ksm_word(old)
        for was, word in zip(old[ksm].tolist(), new[ksm].tolist(), strict=True):
            tree = self.migrated_stable_nodes.pop(was, node_of_frame(was))
            if tree != node_of_frame(word):
                self.migrated_stable_nodes[word] = tree

    def on_unlinked(self, frames: I64) -> None:
        for frame in frames.tolist():
            self.migrated_stable_nodes[frame] = -1

    def on_landed(self, frames: I64) -> None:
        for frame in frames.tolist():
            self.migrated_stable_nodes.pop(frame, None)

    def on_orphaned(self, frames: I64) -> None:
        """The stable nodes of these frames, which only swap caches refer to, are gone."""
        cached = self.swap.cached
        self.orphans.update(cached[np.isin(cached, frames)].tolist())

    def away(self, frames: I64) -> Bool:
        """Whether frames that this node's trees have are on other nodes by now."""
        if self.knobs.merge_across_nodes:
            return np.zeros(len(frames), np.bool_)
        away: Bool = ~on_node(frames, self.id)
        return away

    def position(self, keys: I64) -> I64:
        """Scan positions of rmap_items; negative for those of an mm that is not in ksmd's list."""
        mm, rows, ranks = self._runs(keys)
        return keys + np.repeat((ranks - mm) << VPN_BITS, rows)

    def in_scan_order(self, keys: I64) -> bool:
        """Whether scan positions ascend; not seen where mms are not in ksmd's list."""
        _, rows, ranks = self._runs(keys)
        falls = keys[1:] < keys[:-1]
        falls[np.cumsum(rows)[:-1] - 1] = ranks[1:] <= ranks[:-1]
        return not falls.any()

    def passed(self, keys: I64) -> Bool:
        """Which rmap_items ksmd has come by in the pass under way."""
        if self.window.high == END:
            return np.zeros(len(keys), np.bool_)
        passed: Bool = self.position(keys) < self.window.high
        return passed

    def rank_of(self, mm: int) -> int:
        """Rank in ksmd's list of an mm; -1 if it is not in the list."""
        index = mm & (MAX_MMS_PER_NODE - 1)
        return int(self.ranks[mm >> MM_INDEX_BITS, index]) if index < self.ranks.shape[1] else -1

    def _runs(self, keys: I64) -> tuple[I64, I64, I64]:
        """Runs of items of one mm: its number, how many items, its rank in ksmd's list or -1."""
        mm = mm_of_key(keys)
        starts = np.flatnonzero(changes(mm))
        run = mm[starts]
        index = run & (MAX_MMS_PER_NODE - 1)
        known = index < self.ranks.shape[1]
        ranks = np.where(known, self.ranks[run >> MM_INDEX_BITS, np.where(known, index, 0)], -1)
        return run, np.diff(starts, append=len(mm)), ranks
