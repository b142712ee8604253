"""What merging does to page tables and frames (try_to_merge_one_page(), replace_page())."""

from __future__ import annotations

import numpy as np

from cluster.faults import Faults
from cluster.mailbox import Kind
from cluster.page_table import ACTIVE, ITEM, KSM, PRESENT, SHARED, STABLE, UNSTABLE
from cluster.state import NodeState
from cluster.words import I64, U8, U64, node_of_frame, node_of_key, pfn_of


class Merger:
    def __init__(self, node: NodeState, faults: Faults) -> None:
        self._n = node
        self._faults = faults

    def on_wait(self, keys: I64, digests: U64) -> None:
        """These pages wait in the unstable tree; nothing is to be done until something changes."""
        table = self._n.table
        slots = self._n.spaces.index.slots(keys)
        table.tree_key[slots] = digests
        table.state[slots] = (table.state[slots] | UNSTABLE) & ~np.uint8(ACTIVE)

    def on_stable(self, keys: I64, frames: I64, digests: U64) -> None:
        """The frames of these pages have become KSM frames."""
        n, table = self._n, self._n.table
        n.version += 1
        slots = n.spaces.index.slots(keys)
        shared = (table.state[slots] & SHARED) != 0
        self._spread(table.pte[slots[shared]], frames[shared], digests[shared])
        self._hang(slots, frames, digests)

    def _spread(self, old: I64, new: I64, digests: U64) -> None:
        """Other entries that map the same frame since a fork map a KSM frame now, without an item on it."""
        if len(old) == 0:
            return
        table = self._n.table
        slots = np.flatnonzero(table.state[: table.size] & SHARED)
        order = np.argsort(old)
        at = order[np.minimum(np.searchsorted(old, table.pte[slots], sorter=order), len(old) - 1)]
        same = old[at] == table.pte[slots]
        slots, at = slots[same], at[same]
        self._faults.withdraw(slots)
        table.pte[slots] = new[at]
        table.tree_key[slots] = digests[at]
        state = table.state[slots] & ~np.uint8(SHARED | UNSTABLE)
        table.state[slots] = state | KSM | ACTIVE

    def _hang(self, slots: I64, frames: I64, digests: U64) -> None:
        table = self._n.table
        table.pte[slots] = frames
        table.tree_key[slots] = digests
        table.state[slots] = ITEM | STABLE | KSM | PRESENT

    def on_merge(self, keys: I64, frames: I64, digests: U64) -> None:
        """These pages are to map KSM frames of the same digest; bytes are compared before."""
        n = self._n
        if not n.contents.with_bytes:
            self._replace(keys, frames, digests)
            return
        old = n.table.pte[n.spaces.index.slots(keys)]
        n.out.send(Kind.COMPARE_SOURCE, node_of_frame(old), keys, old, frames, digests)

    def _replace(self, keys: I64, frames: I64, digests: U64) -> None:
        n, table = self._n, self._n.table
        n.version += 1
        slots = n.spaces.index.slots(keys)
        old = table.pte[slots]
        n.counters["pages_merged"] += len(slots)
        n.counters["pages_merged_remote"] += int(
            np.count_nonzero(node_of_frame(old) != node_of_frame(frames))
        )
        self._faults.put(old)
        self._hang(slots, frames, digests)

    # Comparing bytes.

    def on_compare_source(self, keys: I64, old: I64, frames: I64, digests: U64) -> None:
        data = self._n.frames.data
        assert data is not None
        self._n.out.send(Kind.COMPARE_TARGET, node_of_frame(frames), keys, frames, digests, data[pfn_of(old)])

    def on_compare_target(self, keys: I64, frames: I64, digests: U64, pages: U8) -> None:
        data = self._n.frames.data
        assert data is not None
        equal = (data[pfn_of(frames)] == pages).all(axis=1).astype(np.uint8)
        self._n.out.send(Kind.VERDICT, node_of_key(keys), keys, frames, digests, equal)

    def on_verdict(self, keys: I64, frames: I64, digests: U64, equal: U8) -> None:
        """Pages whose digests agree but whose bytes do not stay as they are."""
        same = equal == 1
        self._replace(keys[same], frames[same], digests[same])
        keys, frames, digests = keys[~same], frames[~same], digests[~same]
        n = self._n
        slots = n.spaces.index.slots(keys)
        n.table.state[slots] = (n.table.state[slots] & ~np.uint8(UNSTABLE)) | ACTIVE
        self._faults.put(frames)
        n.out.send(Kind.UNHANG, n.home_of_frames(digests, frames), digests, frames)

    # Frames of this node.

    def on_make_ksm(self, frames: I64, digests: U64) -> None:
        self._n.frames.make_ksm(pfn_of(frames), digests)

    def on_dropped(self, frames: I64) -> None:
        """Stable nodes were removed with all their items."""
        table = self._n.table
        slots = self._n.broken.take_frames(frames)
        table.state[slots] &= ~np.uint8(STABLE)
