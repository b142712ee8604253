"""Migration of frames to other nodes, with all their mappings (mm/migrate.c, ksm_migrate_page() in mm/ksm.c).

A frame moves in four steps:

1. RMAP_WALK, RMAP_FOUND: for a KSM frame, its node asks all nodes how many mappings reverse mapping finds;
   the frame stays if a mapping is not found;
2. MOVE_IN: its node sends the frame to the new node, which allocates a frame and fills it;
3. MOVED: all nodes that may map it or keep its stable node learn its new name;
4. MOVED_OUT: its old node frees the old frame.

Step 3 also renames frames that compaction has moved within their node (`compact_frames`).
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    HUGE_FRAME,
    HUGE_SIZE,
    I64,
    U8,
    U16,
    Array,
    Digests,
    FrameWords,
    Pfns,
    Slots,
    block_of,
    empty,
    frame_word,
    is_huge_word,
    is_ksm_word,
    ksm_word,
    node_of_frame,
    on_node,
    pfn_of,
)
from cluster.ksm.trees import Trees
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_alloc import PageAllocator
from cluster.mm.page_state import HUGE, KSM, PRESENT
from cluster.mm.rmap import found
from cluster.wire.commands import MovedIn
from cluster.wire.messages import Kind
from cluster.wire.rmap_walks import NO_WALKS


class FrameMigration:
    """One node's part in the migration of frames."""

    def __init__(self, node: NodeState, faults: Faults, allocator: PageAllocator, trees: Trees) -> None:
        self._n = node
        self._faults = faults
        self._allocator = allocator
        self._trees = trees
        #: KSM frames whose mappings are being counted, ascending, and their target nodes.
        self._leaving: tuple[I64, I64] = (empty(), empty())
        #: int64[nodes]: frames that came from each node since the last relocation began.
        self.moved_in: I64 = np.zeros(node.nodes, np.int64)
        #: The same for mappings of KSM frames among them, and the walks over these.
        self.mappings_in: I64 = np.zeros(node.nodes, np.int64)
        self.walks = NO_WALKS

    def start_relocation(self) -> None:
        """Count from 0 again in `moved_in`, `mappings_in` and `walks`."""
        self.moved_in, self.mappings_in = np.zeros((2, self._n.nodes), np.int64)
        self.walks = NO_WALKS

    def counts(self) -> MovedIn:
        """Return what has come since the last relocation began."""
        return MovedIn(self.moved_in, self.mappings_in, self.walks)

    def move_pages(self, slots: Slots, to: int) -> None:
        """Ask for the migration of the frames of these pages to node `to` (move_pages())."""
        n, table = self._n, self._n.table
        slots = slots[((table.state[slots] & PRESENT) != 0) & ~n.stays(slots)]
        frames = np.unique(table.pte[slots])
        if is_huge_word(frames).any():
            frames = self._with_whole_huge_pages(frames)
        frames = frames[~on_node(frames, to)]
        n.out.send(Kind.MIGRATE, node_of_frame(frames), frames, np.full(len(frames), to))

    def _with_whole_huge_pages(self, frames: FrameWords) -> FrameWords:
        """Return frames, ascending, with all mapped frames of their huge pages, which move as a whole."""
        table = self._n.table
        huge = table.pte[rows_with(table.state[: table.size], HUGE)]
        blocks = np.unique(block_of(frames[is_huge_word(frames)]))
        return np.union1d(frames, huge[np.isin(block_of(huge), blocks)])

    def on_migrate(self, frames: FrameWords, to: I64) -> None:
        ksm = is_ksm_word(frames)
        self._send_frames(frames[~ksm], to[~ksm])
        order = np.argsort(frames[ksm])
        self._leaving = frames[ksm][order], to[ksm][order]
        self._to_all(Kind.RMAP_WALK, frames[ksm])

    def _to_all(self, kind: Kind, *columns: Array) -> None:
        nodes, rows = self._n.nodes, len(columns[0])
        to = np.repeat(np.arange(nodes), rows)
        self._n.out.send(kind, to, *(np.tile(column, nodes) for column in columns))

    def on_rmap_walk(self, frames: FrameWords) -> None:
        """Count this node's mappings of the KSM frames that reverse mapping finds (rmap_walk_ksm())."""
        n, table = self._n, self._n.table
        slots = rows_with(table.state[: table.size], KSM)
        slots = slots[np.isin(table.pte[slots], frames)]
        slots = slots[found(n, slots)]
        words, count = np.unique(table.pte[slots], return_counts=True)
        n.out.send(Kind.RMAP_FOUND, node_of_frame(words), words, count)

    def on_rmap_found(self, frames: FrameWords, count: I64) -> None:
        words, which = np.unique(frames, return_inverse=True)
        total = np.bincount(which, count).astype(np.int64)
        words = words[total == self._n.frames.mapcount[pfn_of(words)]]
        leaving, to = self._leaving
        self._send_frames(words, to[np.searchsorted(leaving, words)])

    def _send_frames(self, frames: FrameWords, to: I64) -> None:
        store, pfns = self._n.frames, pfn_of(frames)
        digests, *data = store.read(pfns)
        about = store.mapping[pfns], store.pins[pfns], store.mapcount[pfns].astype(np.int32)
        self._n.out.send(Kind.MOVE_IN, to, frames, digests, *about, *data)

    def on_move_in(
        self,
        old: FrameWords,
        digests: Digests,
        mapping: U16,
        pins: Array,
        mapcount: Array,
        data: U8 | None = None,
    ) -> None:
        """Take in as many of these frames as there are free frames; the others stay where they are."""
        n, store = self._n, self._n.frames
        pfns, got = self._frames_for(old)
        old = old[got]
        pages = None if data is None else data[got]
        store.move_in(pfns, digests[got], mapping[got], pins[got], mapcount[got], pages)
        self.send_new_names(old, pfns)
        self.moved_in += np.bincount(node_of_frame(old), minlength=n.nodes)
        ksm = is_ksm_word(old)
        walked = mapcount[got][ksm].astype(np.int64)
        self.walks = self.walks.plus(walked)
        np.add.at(self.mappings_in, node_of_frame(old[ksm]), walked)
        n.out.send(Kind.MOVED_OUT, node_of_frame(old), old)

    def _frames_for(self, old: FrameWords) -> tuple[Pfns, I64 | slice]:
        """Allocate frames for frames of other nodes; return their pfns, and which of `old` get one."""
        store, huge = self._n.frames, is_huge_word(old)
        if not huge.any():
            pfns = store.alloc(len(old))
            return pfns, slice(len(pfns))
        of, which = np.unique(block_of(old[huge]), return_inverse=True)
        first = store.alloc_huge(len(of))
        fits = which < len(first)
        rows = np.flatnonzero(huge)[fits]
        pfns = first[which[fits]] + (old[rows] & (HUGE_SIZE - 1))
        small = store.alloc(int(np.count_nonzero(~huge)))
        return np.concatenate([pfns, small]), np.concatenate([rows, np.flatnonzero(~huge)[: len(small)]])

    def send_new_names(self, old: FrameWords, pfns: Pfns) -> None:
        """Send the new names of frames that are at `pfns` of this node now, and were `old` before.

        KSM frames are renamed on all nodes, private frames on the node of their process.
        """
        n, store = self._n, self._n.frames
        ksm = is_ksm_word(old)
        new, digests = (
            frame_word(n.id, pfns) | np.where(is_huge_word(old), HUGE_FRAME, 0),
            store.content[pfns],
        )
        new[ksm] = ksm_word(new[ksm], n.migration_seq)
        store.make_ksm(new[ksm])
        self._to_all(Kind.MOVED, old[ksm], new[ksm], digests[ksm])
        n.out.send(Kind.MOVED, store.owner_nodes(pfns[~ksm]), old[~ksm], new[~ksm], digests[~ksm])

    def on_moved_out(self, frames: FrameWords) -> None:
        self._n.frames.move_out(pfn_of(frames))

    def on_moved(self, old: FrameWords, new: FrameWords, digests: Digests) -> None:
        """Rename frames in page table entries, rmap_items, the swap cache and the trees."""
        n, table = self._n, self._n.table
        slots, before = n.rename_frames(old, new)
        self._trees.rename(old, new, digests)
        self._allocator.tell_frames(slots)
        if not n.knobs.merge_across_nodes:
            self._faults.touched(slots[node_of_frame(before) != node_of_frame(table.pte[slots])])
