"""What one NUMA node is made of, shared by the modules that change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.columns import changes, rows_with
from cluster.arrays.words import (
    HUGE_SIZE,
    I64,
    MAX_MMS_PER_NODE,
    MM_INDEX_BITS,
    VPN_BITS,
    Array,
    Bool,
    Digests,
    FrameWords,
    ItemKeys,
    Slots,
    block_of,
    empty,
    is_huge_word,
    mm_of_key,
    node_of_frame,
    on_node,
    pinned_word,
    scramble,
)
from cluster.mm.frames import Frames
from cluster.mm.huge.pages import HugePages
from cluster.mm.huge.split_times import SplitTimes
from cluster.mm.page_state import HUGE, IN_UNSTABLE_TREE, KSM, PRESENT, PTE_SWAP, SHARED
from cluster.mm.page_table import PageTable
from cluster.mm.sparse.failed_frames import FailedFrames
from cluster.mm.sparse.pinned_pages import PinnedPages
from cluster.mm.sparse.stable_node_exceptions import MigratedStableNodes, OrphanFrames
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


@dataclass
class NodeState:
    """The memory and the processes of one node, and what it knows of the machine.

    Only its own methods change a part that is an object of an owner class. The comments say which code
    changes the other parts.
    """

    #: Number of this node, and how many there are. Never change.
    id: int
    nodes: int
    #: Physical frames: faults, frame allocation, merging and migration change them.
    frames: Frames
    #: int64[nodes, nodes]: NUMA distances. Never changes.
    distance: Array
    #: /sys/kernel/mm/ksm: `set_knobs` changes it.
    knobs: KsmSpec
    #: Digests of content ids. Never changes.
    contents: Contents
    #: Messages to send: all modules add to it, and `Node.step` empties it.
    out: Outbox
    #: Whether trees have the kernel's shape, as records need it. Never changes.
    tree_shape: bool
    #: Contents below this are in the order of memcmp. Never changes.
    ordered_contents: int = 0
    #: Page table entries and rmap_items: faults, system calls, ksmd and migration change it.
    table: PageTable = field(default_factory=PageTable)
    #: How huge pages are mapped: faults, system calls and splits change it.
    huge_pages: HugePages = field(default_factory=HugePages)
    #: Splits of the window that is being decided: SPLIT_AT and the commands of the window change it.
    split_times: SplitTimes = field(default_factory=SplitTimes)
    #: Processes and their VMAs: system calls and the workload change it.
    spaces: AddressSpaces = field(init=False)
    #: Swap entries and the swap cache: faults, pageout and migration change it.
    swap: Swap = field(init=False)
    #: With merge_across_nodes=0: migration and the trees' messages change it.
    migrated_stable_nodes: MigratedStableNodes = field(default_factory=MigratedStableNodes)
    #: KSM frames without a stable node: merging, `on_orphaned` and migration change it.
    orphans: OrphanFrames = field(default_factory=OrphanFrames)
    #: Pages that neither merge nor move: faults change it.
    pinned: PinnedPages = field(default_factory=PinnedPages)
    #: Frames whose memory has failed: memory failure and merging change it.
    failed: FailedFrames = field(default_factory=FailedFrames)
    #: Sequence number of the migration under way; it becomes the generation of the KSM frame words that the
    #: migration makes. The command that begins or ends a migration sets it.
    migration_seq: int = 0
    #: How far ksmd has come in the pass under way: the commands to scan and to unmerge set it.
    window: Window = field(default_factory=lambda: Window(0))
    #: Totals since the start, by name of `cluster.spec.statistics`: each module adds what it does.
    counters: Counter[str] = field(default_factory=Counter)
    #: int64[nodes, n]: rank in ksmd's list of the n-th mm of each node; -1 outside the list. The commands to
    #: scan and to count set it.
    ranks: I64 = field(init=False)

    def __post_init__(self) -> None:
        self.spaces = AddressSpaces(self.table)
        self.swap = Swap(with_bytes=self.contents.with_bytes)
        self.ranks = np.full((self.nodes, 1), -1)
        self.set_knobs(self.knobs)

    def set_knobs(self, knobs: KsmSpec) -> None:
        """Set the knobs, and give the page table the columns that they need."""
        self.knobs = knobs
        self.table.leaving_forgets = self.profile.leaving_forgets
        if knobs.smart_scan:
            self.table.keep_ages()
        if not self.homes_follow:
            self.table.keep_homes()

    def zonelist(self, start: int) -> I64:
        """Return all nodes, the nearest to node `start` first (build_zonelists()): int64[nodes]."""
        return np.argsort(self.distance[start], kind="stable")

    @property
    def limit(self) -> int:
        """Return the largest number of rmap_items of one stable node."""
        return self.knobs.max_page_sharing if self.profile.chains else NO_LIMIT

    @property
    def profile(self) -> Profile:
        return PROFILES[self.knobs.kernel]

    @property
    def leaving_ends_age(self) -> bool:
        """Return whether ages end when items leave stable nodes: on some kernels, with smart_scan."""
        return self.profile.leaving_forgets and self.knobs.smart_scan == 1

    @property
    def homes_follow(self) -> bool:
        """Return whether the digest of a page in the unstable tree says which node has its entry.

        With trees for each node it does not: the home is that of the frame when it was inserted.
        """
        return self.knobs.merge_across_nodes == 1 and not self.tree_shape

    @property
    def knows_order(self) -> bool:
        """Return whether this node's trees can tell which contents come first in the order of memcmp."""
        return self.ordered_contents > 0 and (self.nodes == 1 or not self.knobs.merge_across_nodes)

    def tree_words(self, slots: Slots) -> FrameWords:
        """Return the words by which trees know the frames of pages. int64[n] -> int64[n]."""
        frames = self.table.pte[slots]
        return np.where(self.fixed(slots), pinned_word(frames), frames) if len(self.pinned) else frames

    def fixed(self, slots: Slots) -> Bool:
        """Return which pages are pinned, or part of a huge page with a pinned page: int64[n] -> bool[n]."""
        fixed, pinned = self.pinned.among(slots), self.pinned.slots()
        if self.huge_pages.used:
            pinned = pinned[(self.table.state[pinned] & HUGE) != 0]
            huge = np.flatnonzero((self.table.state[slots] & HUGE) != 0)
            fixed[huge] = np.isin(block_of(self.table.pte[slots[huge]]), block_of(self.table.pte[pinned]))
        return fixed

    def stays(self, slots: Slots) -> Bool:
        """Return which pages are `fixed`, or cannot move because memory has failed: int64[n] -> bool[n]."""
        fixed = self.fixed(slots)
        return fixed | self.failed.hold(self.table.pte[slots]) if len(self.failed) else fixed

    def of_huge_pages(self, slots: Slots) -> Slots:
        """Return the pages that map the huge pages of which these pages are parts: int64[n] -> int64[m]."""
        table = self.table
        blocks = block_of(table.pte[slots[(table.state[slots] & HUGE) != 0]])
        rows = rows_with(table.state[: table.size], HUGE) if len(blocks) else empty()
        there: Slots = rows[np.isin(block_of(table.pte[rows]), blocks)]
        return there

    def home_of_frames(self, digests: Digests, frames: FrameWords) -> I64:
        """Return the nodes whose trees have the entries of the contents of these frames. int64[n]."""
        if not self.knobs.merge_across_nodes:
            return node_of_frame(frames)
        if self.tree_shape:
            return np.zeros(len(digests), np.int64)
        return self._home_of(digests)

    def _home_of(self, digests: Digests) -> I64:
        if self.nodes == 1:
            return np.zeros(len(digests), np.int64)
        # The scrambled digest as a fraction of the nodes: a division would take several times as long.
        return ((scramble(digests) * np.uint64(self.nodes)) >> np.uint64(32)).view(np.int64)

    def keys_of(self, slots: Slots) -> ItemKeys:
        """Return the item keys of slots that belong to VMAs."""
        index = self.spaces.index
        return index.keys(slots, index.vma_of(slots))

    def bases_of(self, slots: Slots) -> Slots:
        """Return the first slots of the aligned 512 virtual pages that slots are part of. int64[n]."""
        return slots - (self.keys_of(slots) & (HUGE_SIZE - 1))

    def unstable_entries(self, slots: Slots) -> tuple[ItemKeys, Digests, I64]:
        """Return item keys, digests and home nodes of the unstable trees' entries of pages."""
        digests = self.table.tree_key[slots]
        homes = self._home_of(digests) if self.homes_follow else self.table.home[slots].astype(np.int64)
        return self.keys_of(slots), digests, homes

    def send_to_trees(self, kind: Kind, homes: I64, frames: FrameWords, *columns: Array) -> None:
        """Send rows to these homes, and to the nodes whose trees still have the frames if they migrated."""
        self.out.send(kind, homes, *columns)
        if self.migrated_stable_nodes:
            trees = self.migrated_stable_nodes.trees_of(frames)
            migrated = trees >= 0
            self.out.send(kind, trees[migrated], *(column[migrated] for column in columns))

    def rename_frames(self, old: FrameWords, new: FrameWords) -> tuple[Slots, FrameWords]:
        """Replace old names of migrated frames by new ones.

        Return the slots that map them and their previous entries.
        """
        renamed = self.table.rename_frames(old, new)
        self.swap.rename_frames(old, new)
        self.orphans.rename(old, new)
        huge = is_huge_word(old)
        self.huge_pages.rename(block_of(old[huge]), block_of(new[huge]))
        if not self.knobs.merge_across_nodes:
            self.migrated_stable_nodes.rename(old, new)
        return renamed

    def on_unlinked(self, frames: FrameWords) -> None:
        self.migrated_stable_nodes.unlink(frames)

    def on_linked(self, frames: FrameWords) -> None:
        self.migrated_stable_nodes.link(frames)

    def on_orphaned(self, frames: FrameWords) -> None:
        """Mark frames of the swap cache whose stable nodes are gone as orphans (ORPHANED)."""
        cached = self.swap.cached
        self.orphans.add(cached[np.isin(cached, frames)])

    def away(self, frames: FrameWords) -> Bool:
        """Return which frames of this node's trees are on other nodes by now. int64[n] -> bool[n]."""
        if self.knobs.merge_across_nodes:
            return np.zeros(len(frames), np.bool_)
        away: Bool = ~on_node(frames, self.id)
        return away

    def position(self, keys: ItemKeys) -> I64:
        """Return the scan positions of rmap_items; negative if the mm is not in ksmd's list."""
        mm, rows, ranks = self._runs(keys)
        return keys + np.repeat((ranks - mm) << VPN_BITS, rows)

    def in_scan_order(self, keys: ItemKeys) -> bool:
        """Return whether scan positions ascend; positions of mms outside ksmd's list do not count."""
        _, rows, ranks = self._runs(keys)
        falls = keys[1:] < keys[:-1]
        falls[np.cumsum(rows)[:-1] - 1] = ranks[1:] <= ranks[:-1]
        return not falls.any()

    def passed(self, keys: ItemKeys) -> Bool:
        """Return which rmap_items ksmd has visited in the pass under way. int64[n] -> bool[n]."""
        if self.window.high == END:
            return np.zeros(len(keys), np.bool_)
        passed: Bool = self.position(keys) < self.window.high
        return passed

    def rank_of(self, mm: int) -> int:
        """Return the rank of an mm in ksmd's list; -1 if it is not in the list."""
        index = mm & (MAX_MMS_PER_NODE - 1)
        return int(self.ranks[mm >> MM_INDEX_BITS, index]) if index < self.ranks.shape[1] else -1

    def ranks_of(self, mms: I64) -> I64:
        """Return the rank of each mm in ksmd's list, -1 if it is not in the list. int64[n] -> int64[n]."""
        index = mms & (MAX_MMS_PER_NODE - 1)
        known = index < self.ranks.shape[1]
        return np.where(known, self.ranks[mms >> MM_INDEX_BITS, np.where(known, index, 0)], -1)

    def _runs(self, keys: ItemKeys) -> tuple[I64, I64, I64]:
        """Return runs of items of one mm: its number, how many items, its rank in ksmd's list or -1."""
        mm = mm_of_key(keys)
        starts = np.flatnonzero(changes(mm))
        run = mm[starts]
        return run, np.diff(starts, append=len(mm)), self.ranks_of(run)

    def validate(self) -> None:
        """Raise AssertionError if parts of the node contradict each other or themselves."""
        self.table.validate()
        self.spaces.validate()
        self.huge_pages.validate(rows_with(self.table.state[: self.table.size], HUGE))
        swapped = PTE_SWAP - self.table.pte[: self.table.size]
        references = np.bincount(swapped[swapped >= 0], minlength=len(self.swap.count))
        assert np.array_equal(references, self.swap.count), "references to swap entries are miscounted"
        pinned = self.table.state[self.pinned.slots()] & (PRESENT | KSM | SHARED)
        assert (pinned == PRESENT).all(), "a pinned page has no frame of its own"
        in_tree = rows_with(self.table.state[: self.table.size], IN_UNSTABLE_TREE)
        assert (self.unstable_entries(in_tree)[2] < self.nodes).all(), "an unstable tree has no node"
