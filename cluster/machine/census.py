"""What ksmd has made of each process and of each mapping, at the end of a run (/proc/PID/ksm_stat)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import counts_in_runs, rows_with
from cluster.arrays.words import I64, node_of_frame
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import ITEM, KSM, KSM_ZERO, PRESENT, STABLE, UNSTABLE
from cluster.wire.commands import MappingName, ProcessCounts

#: What is counted, in this order, and the bit of the pages.
COUNTED = {
    "pages_mapped": PRESENT,
    "ksm_rmap_items": ITEM,
    "ksm_merging_pages": STABLE,
    "ksm_zero_pages": KSM_ZERO,
    "pages_unshared": UNSTABLE,
}
#: The columns behind those: huge pages that PMDs have mapped at any time, and that they map now.
HUGE_COLUMNS = ("huge_pages_before", "huge_pages")


class ProcessName(NamedTuple):
    """Names a process of a node: index of its kind, number in the kind, captured process's name or ""."""

    kind: int
    number: int
    captured: str


class Census(NamedTuple):
    """The machine's processes by kind and number, its mappings by name, and its KSM frames by mappings."""

    #: int64[n]: the index of each process's kind, its number in the kind, its node.
    kinds: I64
    numbers: I64
    nodes: I64
    #: int64[n, counts], int64[m, counts]: columns as in COUNTED, then HUGE_COLUMNS.
    processes: I64
    mapping_names: tuple[MappingName, ...]
    mappings: I64
    #: int64[k]: KSM frames with 1, 2, 3 to 4, 5 to 8, ... mappings.
    ksm_frames: I64
    #: int64[nodes, nodes]: page table entries that map a KSM frame, by the process's node and the frame's.
    ksm_mappings: I64
    #: Huge pages that a PMD maps; several may map one.
    huge_pages: int = 0
    #: Times since the start that small pages took the place of a huge page, since no node had one free.
    huge_fallback: int = 0
    #: Huge pages split since the start because no node had one free to which they could move as a whole.
    huge_split_to_move: int = 0


def _no_rows(*columns: int) -> I64:
    return np.zeros((0, *columns), np.int64)


_COLUMNS = len(COUNTED) + len(HUGE_COLUMNS)
#: Where nothing was counted: no process, and no mapping.
EMPTY = Census(
    *(_no_rows(), _no_rows(), _no_rows(), _no_rows(_COLUMNS), (), _no_rows(_COLUMNS)),
    ksm_frames=_no_rows(),
    ksm_mappings=_no_rows(0),
)


def count_node(n: NodeState, names: Sequence[ProcessName]) -> ProcessCounts:
    """Count the pages of each process of a node, and of all mappings of one name; `names` by mm."""
    index = n.spaces.index
    vmas = [index.vmas[rank] for rank in index.by_slot]
    row_of_mm = {mm: row for row, mm in enumerate(n.spaces.mms)}
    process = np.array([row_of_mm[vma.mm] for vma in vmas], np.int64)
    rows: dict[MappingName, int] = {}
    mapping = np.empty(len(vmas), np.int64)
    for i, vma in enumerate(vmas):
        owner = names[process[i]]
        mapping[i] = rows.setdefault(MappingName(owner.kind, owner.captured, vma.name), len(rows))
    state = n.table.state[: n.table.size]
    starts = np.array([vma.slot0 for vma in vmas], np.int64)
    columns = [counts_in_runs((state & bit) != 0, starts) for bit in COUNTED.values()]
    huge = n.huge_pages
    columns += [np.bincount(index.vma_of(bases), minlength=len(vmas)) for bases in (huge.ever, huge.pmds)]
    counts = np.stack(columns, axis=1)
    return ProcessCounts(
        kinds=np.array([name.kind for name in names], np.int64),
        numbers=np.array([name.number for name in names], np.int64),
        processes=_sums(counts, process, len(names)),
        mapping_names=tuple(rows),
        mappings=_sums(counts, mapping, len(rows)),
        ksm_frames=n.frames.ksm_frames_by_mappings(),
        ksm_mappings=np.bincount(node_of_frame(n.table.pte[rows_with(state, KSM)]), minlength=n.nodes),
        huge_pages=len(np.unique(n.table.pte[huge.pmds])),
        huge_fallback=n.counters["thp_fault_fallback"],
        huge_split_to_move=n.counters["thp_migration_split"],
    )


def _sums(counts: I64, rows: I64, length: int) -> I64:
    """Return the sums of the counts that belong to each row: int64[n, k], int64[n] -> int64[length, k]."""
    sums = np.zeros((length, counts.shape[1]), np.int64)
    np.add.at(sums, rows, counts)
    return sums


def joined(parts: Sequence[ProcessCounts]) -> Census:
    """Return the census of the machine from those of its nodes, ascending."""
    kinds = np.concatenate([part.kinds for part in parts])
    numbers = np.concatenate([part.numbers for part in parts])
    nodes = np.repeat(np.arange(len(parts)), [len(part.kinds) for part in parts])
    processes = np.concatenate([part.processes for part in parts])
    order = np.lexsort((numbers, kinds))
    names = sorted({name for part in parts for name in part.mapping_names})
    row = {name: i for i, name in enumerate(names)}
    rows = np.array([row[name] for part in parts for name in part.mapping_names], np.int64)
    mappings = _sums(np.concatenate([part.mappings for part in parts]), rows, len(names))
    frames = np.zeros(max(len(part.ksm_frames) for part in parts), np.int64)
    for part in parts:
        frames[: len(part.ksm_frames)] += part.ksm_frames
    of_processes = kinds[order], numbers[order], nodes[order], processes[order]
    return Census(
        *of_processes,
        tuple(names),
        mappings,
        frames,
        ksm_mappings=np.stack([part.ksm_mappings for part in parts]),
        huge_pages=sum(part.huge_pages for part in parts),
        huge_fallback=sum(part.huge_fallback for part in parts),
        huge_split_to_move=sum(part.huge_split_to_move for part in parts),
    )
