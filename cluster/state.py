"""What one NUMA node is made of, shared by the modules that change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cluster.digest import Contents
from cluster.frames import Frames
from cluster.mailbox import Outbox
from cluster.page_table import PageTable
from cluster.spec import KsmSpec
from cluster.vma import AddressSpaces
from cluster.words import I64, MAX_MMS_PER_NODE, MM_INDEX_BITS, U64, Array, mm_of_key, node_of_frame, scramble


class Broken:
    """Items that still hang on a stable node although their page was broken out: slot and KSM frame word."""

    def __init__(self) -> None:
        self._slots: list[I64] = []
        self._frames: list[I64] = []

    def add(self, slots: I64, frames: I64) -> None:
        if len(slots):
            self._slots.append(slots)
            self._frames.append(frames)

    def _joined(self) -> tuple[I64, I64]:
        none = np.empty(0, np.int64)
        return np.concatenate([none, *self._slots]), np.concatenate([none, *self._frames])

    def _keep(self, slots: I64, frames: I64) -> None:
        self._slots, self._frames = ([slots], [frames]) if len(slots) else ([], [])

    def take(self, wanted: I64) -> I64:
        """Frames of these slots, which must all be here; they are forgotten."""
        if len(wanted) == 0:
            return wanted
        slots, frames = self._joined()
        order = np.argsort(slots)
        at = order[np.searchsorted(slots, wanted, sorter=order)]
        rest = np.ones(len(slots), np.bool_)
        rest[at] = False
        self._keep(slots[rest], frames[rest])
        return frames[at]

    def take_frames(self, dropped: I64) -> I64:
        """Slots of the items that hang on these frames; they are forgotten."""
        slots, frames = self._joined()
        gone = np.isin(frames, dropped)
        self._keep(slots[~gone], frames[~gone])
        return slots[gone]


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
    table: PageTable = field(init=False)
    spaces: AddressSpaces = field(init=False)
    broken: Broken = field(default_factory=Broken)
    #: Totals since the start, by name of `cluster.statistics`.
    counters: Counter[str] = field(default_factory=Counter)
    #: int64[nodes, n]: rank in ksmd's list of the n-th mm of each node.
    ranks: I64 = field(init=False)
    #: Grows with every change to the page tables.
    version: int = 0

    def __post_init__(self) -> None:
        self.table = PageTable()
        self.spaces = AddressSpaces(self.table)
        self.ranks = np.full((self.nodes, 1), -1)

    @cached_property
    def zonelists(self) -> I64:
        """Row i: all nodes, nearest to node i first (build_zonelists())."""
        return np.argsort(self.distance, axis=1, kind="stable")

    @property
    def limit(self) -> int:
        """Most rmap_items that one stable node takes."""
        return self.knobs.max_page_sharing

    def home(self, digests: U64, tree: I64) -> I64:
        """The nodes that keep the stable and unstable trees' entries of contents.

        `tree` is the node of each page's frame: with merge_across_nodes=0 that node has the tree.
        """
        if self.knobs.merge_across_nodes:
            return (scramble(digests) % np.uint64(self.nodes)).astype(np.int64)
        return tree

    def home_of_frames(self, digests: U64, frames: I64) -> I64:
        return self.home(digests, node_of_frame(frames))

    def rank_of(self, keys: I64) -> I64:
        """Rank in ksmd's list of each item's mm; -1 if it is not in the list."""
        mm = mm_of_key(keys)
        index = mm & (MAX_MMS_PER_NODE - 1)
        known = index < self.ranks.shape[1]
        return np.where(known, self.ranks[mm >> MM_INDEX_BITS, np.where(known, index, 0)], -1)
