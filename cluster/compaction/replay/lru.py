"""Replaying records of compaction among ordinary memory: LRU pages, in large folios or single ones."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.buddy import pages_of
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PageKind
from cluster.compaction.replay.blocks import compact_all, first_difference
from cluster.compaction.replay.migration_record import memory_of, rules_of, unpack
from cluster.script.record import Difference, Json

_MOVE = np.dtype([("source", "<u4"), ("target", "<u4"), ("order", "<i2"), ("mode", "<i2"), ("answer", "<i4")])


def compare_lru(record: Json) -> Difference | None:
    """Replay writes to compact_memory; compare all moves with their orders, and counters of migrations.

    Two things are taken from the record, as a map does not show them: unevictable pages that moved after all,
    and free pages that the recorded system itself took between map and run.
    """
    for number, run in enumerate(record["runs"]):
        theirs = _moves(run)
        state = record["states"][number]
        memory, _driver, lru = memory_of(record, state)
        lru.make_evictable(theirs[:, 0])
        for pfn in _taken(theirs, state, record["states"][number + 1]).tolist():
            memory.take_range(pfn, pfn + 1)
        ours = _compacted(memory, record)
        step = f"run {number}"
        if difference := first_difference(step, "moves", ours, theirs):
            return difference
        for name in ("pgmigrate_success", "pgmigrate_fail"):
            got, expected = getattr(memory.vmstat, name), run["vmstat_delta"].get(name, 0)
            if got != expected:
                return Difference(step, name, got, expected)
    return None


def _moves(run: Json) -> I64:
    """Return source, target and order of each move. int64[moves, 3]."""
    moves = np.frombuffer(unpack(run["all_moves_zb64"]), _MOVE)
    return np.column_stack([moves[name].astype(np.int64) for name in ("source", "target", "order")])


def _taken(moves: I64, before: Json, after: Json) -> I64:
    """Return pages that were free, and are not afterwards, though nothing moved there. int64[n]"""
    was, now = (np.frombuffer(unpack(state["map_zb64"]), np.uint8) for state in (before, after))
    taken = (was == PageKind.FREE) & (now != PageKind.FREE)
    taken[pages_of(moves[:, 1], np.int64(1) << moves[:, 2])] = False
    pfns: I64 = taken.nonzero()[0]
    return pfns


def _compacted(memory: Memory, record: Json) -> I64:
    moves = compact_all(memory, rules_of(record))
    orders = memory.pages.folio_order
    none = np.zeros(len(moves), np.int64)
    return np.column_stack([moves, none if orders is None else orders[moves[:, 1]].astype(np.int64)])
