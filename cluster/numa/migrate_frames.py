"""Moving frames to other nodes, with all their mappings (mm/migrate.c, ksm_migrate_page() in mm/ksm.c).

A frame moves in four steps: its node asks all nodes what reverse mapping finds of a KSM frame, and goes on if
that is every mapping; sends the frame to its new node; there it gets a place; the nodes that may map it or
keep a stable node of it learn its new name, and its old place is free. The last step is also that of frames
that compaction has moved within their node (compact.py).
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    I64,
    U8,
    U32,
    U64,
    Array,
    empty,
    frame_word,
    is_ksm_word,
    ksm_word,
    node_of_frame,
    node_of_mm,
    on_node,
    pfn_of,
)
from cluster.ksm.trees import Trees
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_state import KSM, PRESENT
from cluster.mm.rmap import found
from cluster.wire.messages import Kind


class Migration:
    def __init__(self, node: NodeState, faults: Faults, placement: PageAllocator, trees: Trees) -> None:
        self._n = node
        self._faults = faults
        self._placement = placement
        self._trees = trees
        #: KSM frames of this node whose mappings are being looked for, ascending, and where they are to go.
        self._leaving: tuple[I64, I64] = (empty(), empty())
        #: Frames that came here so far, by the nodes from which.
        self.moved_in: I64 = np.zeros(node.nodes, np.int64)

    def move(self, slots: I64, to: int) -> None:
        """move_pages(): the frames of these pages are to be on node `to`."""
        n, table = self._n, self._n.table
        frames = np.unique(table.pte[slots[(table.state[slots] & PRESENT) != 0]])
        frames = frames[~on_node(frames, to)]
        n.out.send(Kind.MIGRATE, node_of_frame(frames), frames, np.full(len(frames), to))

    def on_migrate(self, frames: I64, to: I64) -> None:
        ksm = is_ksm_word(frames)
        self._send_off(frames[~ksm], to[~ksm])
        order = np.argsort(frames[ksm])
        self._leaving = frames[ksm][order], to[ksm][order]
        self._to_all(Kind.RMAP_WALK, frames[ksm])

    def _to_all(self, kind: Kind, *columns: Array) -> None:
        nodes, rows = self._n.nodes, len(columns[0])
        to = np.repeat(np.arange(nodes), rows)
        self._n.out.send(kind, to, *(np.tile(column, nodes) for column in columns))

    def on_rmap_walk(self, frames: I64) -> None:
        """Counts this node's mappings of KSM frames that reverse mapping finds."""
        n, table = self._n, self._n.table
        slots = rows_with(table.state[: table.size], KSM)
        slots = slots[np.isin(table.pte[slots], frames)]
        slots = slots[found(n, slots)]
        words, count = np.unique(table.pte[slots], return_counts=True)
        n.out.send(Kind.RMAP_FOUND, node_of_frame(words), words, count)

    def on_rmap_found(self, frames: I64, count: I64) -> None:
        words, which = np.unique(frames, return_inverse=True)
        total = np.bincount(which, count).astype(np.int64)
        words = words[total == self._n.frames.mapcount[pfn_of(words)]]
        leaving, to = self._leaving
        self._send_off(words, to[np.searchsorted(leaving, words)])

    def _send_off(self, frames: I64, to: I64) -> None:
        store, pfns = self._n.frames, pfn_of(frames)
        digests, *pages = store.read(pfns)
        about = store.mapping[pfns], store.pins[pfns], store.mapcount[pfns]
        self._n.out.send(Kind.MOVE_IN, to, frames, digests, *about, *pages)

    def on_move_in(
        self,
        old: I64,
        digests: U64,
        mapping: U32,
        pins: Array,
        mapcount: Array,
        pages: U8 | None = None,
    ) -> None:
        """As many frames as there is room for."""
        n, store = self._n, self._n.frames
        pfns = store.alloc(len(old))
        got = slice(len(pfns))
        old = old[got]
        store.fill(pfns, digests[got], None if pages is None else pages[got])
        store.mapping[pfns], store.pins[pfns], store.mapcount[pfns] = (
            mapping[got],
            pins[got],
            mapcount[got],
        )
        self.announce(old, pfns)
        self.moved_in += np.bincount(node_of_frame(old), minlength=n.nodes)
        n.out.send(Kind.MOVED_OUT, node_of_frame(old), old)

    def announce(self, old: I64, pfns: I64) -> None:
        """The frames that had these names are here now: whoever may know them learns their new names."""
        n, store = self._n, self._n.frames
        ksm = is_ksm_word(old)
        new, digests = frame_word(n.id, pfns), store.content[pfns]
        new[ksm] = ksm_word(new[ksm], n.migration)
        store.make_ksm(new[ksm])
        self._to_all(Kind.MOVED, old[ksm], new[ksm], digests[ksm])
        owner = node_of_mm((store.mapping[pfns[~ksm]] >> np.uint32(2)).astype(np.int64))
        n.out.send(Kind.MOVED, owner, old[~ksm], new[~ksm], digests[~ksm])

    def on_moved_out(self, frames: I64) -> None:
        self._n.frames.move_out(pfn_of(frames))

    def on_moved(self, old: I64, new: I64, digests: U64) -> None:
        """Page table entries, items, the swap cache and the trees follow their frames."""
        n, table = self._n, self._n.table
        slots, before = n.rename_frames(old, new)
        self._trees.rename(old, new, digests)
        self._placement.tell_frames(slots)
        if not n.knobs.merge_across_nodes:
            self._faults.touched(slots[node_of_frame(before) != node_of_frame(table.pte[slots])])
