"""What a node shows of itself: statistics and dumps. Nothing here changes the node."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import Bool, Slots, node_of_frame
from cluster.ksm.trees import Trees
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import ITEM, KSM, KSM_ZERO, PRESENT, SPLIT_ZERO, STABLE, UNSTABLE
from cluster.mm.processes import Processes
from cluster.mm.vma import Mm
from cluster.wire.commands import NodeDump, ProcessStatistics, Statistics


class NodeView:
    """Statistics and dumps of one node."""

    def __init__(self, node: NodeState, trees: Trees, processes: Processes) -> None:
        self._n = node
        self._trees = trees
        self._processes = processes
        #: Statistics that are counted over the page table, and the version of the page table counted.
        self._gauges: tuple[int, dict[str, int]] = (-1, {})

    def statistics(self) -> Statistics:
        """Return every statistic so far, counters since the start."""
        n = self._n
        if self._gauges[0] != n.table.version:
            self._gauges = (n.table.version, self._page_table_gauges())
        shared, sharing, chains, dups = self._trees.counts()
        gauges = self._gauges[1]
        counts = {
            **gauges,
            "frames_used": n.frames.used,
            "frames_without_ksm": n.frames.used - n.frames.ksm_frames + gauges["frames_without_ksm"],
            "frames_free": n.frames.free_count,
            "ksm_frames": n.frames.ksm_frames,
            "huge_pages": len(n.huge_pages.pmds),
            "stable_node_chains": chains,
            "stable_node_dups": dups,
            **n.counters,
            "bytes_sent": n.out.bytes_sent,
        }
        return Statistics(counts, shared, sharing)

    def _page_table_gauges(self) -> dict[str, int]:
        n = self._n
        state = n.table.state[: n.table.size]

        def count(flag: int) -> int:
            return int(np.count_nonzero(state & flag))

        nodes = node_of_frame(n.table.pte[rows_with(state, KSM)])
        zero_pages, initial = count(KSM_ZERO), n.table.initial_frames
        merged = len(nodes) + zero_pages + (count(SPLIT_ZERO) if n.huge_pages.used else 0)
        return {
            # Of the pages that gave up frames.
            "frames_without_ksm": merged - (initial.surplus(state) if initial else 0),
            "pages_mapped": count(PRESENT),
            "pages_unshared": count(UNSTABLE),
            "rmap_items": count(ITEM),
            "ksm_merging_pages": count(STABLE),
            "ksm_zero_pages": zero_pages,
            "ksm_mappings": len(nodes),
            "ksm_mappings_remote": int(np.count_nonzero(nodes != n.id)),
            "ksm_mappings_distance": int(n.distance[n.id][nodes].sum()),
        }

    def dump(self) -> NodeDump:
        """Return page tables by item key and the frames in use."""
        n = self._n
        index = n.spaces.index
        slots = np.concatenate(
            [np.empty(0, np.int64)]
            + [np.arange(v.slot0, v.slot0 + v.pages) for v in index.vmas if not v.unmapped]
        )
        used = n.frames.in_use()
        mapcount = n.frames.mapcount[used].astype(np.int32)
        return NodeDump(
            keys=index.keys(slots, index.vma_of(slots)) if len(slots) else slots,
            pte=n.table.pte[slots],
            by_pmd=self._by_pmd(slots),
            state=n.table.state[slots],
            frames=used,
            mapcount=mapcount,
            refcount=mapcount + n.frames.pins[used],
            mapping=n.frames.mapping[used],
            content=n.frames.content[used],
            free_count=n.frames.free_count,
            processes={mm.id: self._ksm_stat(mm) for mm in n.spaces.mms.values() if not mm.exited},
        )

    def _by_pmd(self, slots: Slots) -> Bool:
        if not self._n.huge_pages.used:
            return np.zeros(len(slots), np.bool_)
        return self._n.huge_pages.by_pmd(self._n.bases_of(slots))

    def _ksm_stat(self, mm: Mm) -> ProcessStatistics:
        merging, items = self._processes.items(mm)
        zero = self._processes.zero_pages(mm)
        return ProcessStatistics(merging, items, zero, mm.merge_any, mm.mergeable)
