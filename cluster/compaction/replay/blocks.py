"""Replaying records of whole memories: compaction from the recorded start, compared move by move."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.scripted import ScriptedDriver
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, USED, PageKind, free_blocks_of
from cluster.compaction.replay.migration_record import apply_behaviour, memory_of, moves_of, rules_of, unpack
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.compact_zone import Compaction
from cluster.script.record import Difference, Json

#: counters that follow from the start map alone
COUNTERS = ("pgmigrate_success", "pgmigrate_fail", "compact_free_scanned", "compact_isolated")


def compact_all(memory: Memory, rules: CompactionRules, request: Request | None = None) -> I64:
    """Compact every zone, from the lowest up, as compact_memory does; return (source, target) of each move.

    int64[moves, 2].
    """
    moves = []
    for zone in memory.zones:
        compaction = Compaction(memory, zone, request, rules=rules)
        compaction.run()
        moves += compaction.moves
    return np.concatenate([np.column_stack(pair) for pair in moves]) if moves else np.zeros((0, 2), np.int64)


def compare_compact(record: Json) -> Difference | None:
    """Replay writes to compact_memory, each from the map recorded before it; return the first difference.

    Where pages of the recorded system itself moved too, targets depend on pages that a map does not show
    (pages in per-CPU batches on their way to the LRU lists). Then only the moved pages are compared.
    """
    before, rules = None, rules_of(record)
    for number, run in enumerate(record["runs"]):
        memory, driver, lru = memory_of(record, record["states"][number])
        if before is None:
            for behaviour in record["behaviour"]:
                apply_behaviour(driver, behaviour["rule"])
        else:
            _continue_scripts(before, driver)
        before = driver
        step = f"run {number}"
        moves = compact_all(memory, rules)
        ours, theirs = moves[driver.page_at[moves[:, 1]] >= 0], moves_of(run)
        alone = not run["summary"]["other_migrated"] and not lru.isolated
        difference = (
            first_difference(step, "moves", ours, theirs) or _counters(step, memory, run, rules)
            if alone
            else first_difference(step, "sources", np.unique(ours[:, 0]), np.unique(theirs[:, 0]))
        )
        states = record["states"][number : number + 2]
        difference = difference or _free_blocks(step, memory, driver.kind, *states)
        if difference:
            return difference
    return None


def compare_zram(record: Json) -> Difference | None:
    """Replay the compaction of a memory full of zsmalloc pages, before and after zsmalloc compacts them."""
    states = record["states"]
    for number, (before, after) in enumerate((("punched", "compacted"), ("zs_compacted", "compacted_again"))):
        memory, driver, _lru = memory_of(record, states[before])
        compact_all(memory, rules_of(record))
        kinds = np.frombuffer(unpack(states[after]["map_zb64"]), np.uint8)
        theirs = np.flatnonzero(kinds == driver.kind)
        difference = (
            first_difference(after, "pages", np.sort(driver.frame_of), theirs)
            or _counters(after, memory, record["runs"][number], rules_of(record))
            or _free_blocks(after, memory, driver.kind, states[before], states[after])
        )
        if difference:
            return difference
    return None


def _continue_scripts(before: ScriptedDriver, after: ScriptedDriver) -> None:
    """Hand what is left of the scripts to the same pages of the next run."""
    numbers = before.page_at[after.frame_of]
    known = numbers >= 0
    for name in ("refusals", "failures", "error"):
        getattr(after.scripts, name)[known] = getattr(before.scripts, name)[numbers[known]]


def _counters(step: str, memory: Memory, run: Json, rules: CompactionRules) -> Difference | None:
    # Without `counts_every_page`, a compound page counts once, and a map does not show orders.
    names = (*COUNTERS, "compact_migrate_scanned") if rules.counts_every_page else COUNTERS
    ours = memory.vmstat.as_dict()
    theirs = {name: run["vmstat_delta"].get(name, 0) for name in names}
    name = next((name for name in names if ours[name] != theirs[name]), None)
    return None if name is None else Difference(step, name, ours[name], theirs[name])


def _free_blocks(step: str, memory: Memory, kind: int, before: Json, after: Json) -> Difference | None:
    """Compare how many blocks of order 9 the free pages make up, `kind` being that of the driver's pages.

    Pages that the recorded system itself took since are not free here either. Its free pages are those of the
    buddy lists, and those on per-CPU lists, which /proc/buddyinfo leaves out. Without a map, that counts.
    """
    if "map_zb64" not in after:
        ours, theirs = memory.free_blocks(PAGEBLOCK_ORDER), after["order9_free_blocks"]
        return None if ours == theirs else Difference(step, "order9_free_blocks", ours, theirs)
    was, now = (np.frombuffer(unpack(state["map_zb64"]), np.uint8) for state in (before, after))
    theirs_free = (now == PageKind.FREE) | ((now == PageKind.LIMBO) & (was != PageKind.LIMBO))
    taken = ~theirs_free & (now != kind) & ((was == PageKind.FREE) | (was == kind))
    ours_free = memory.pages.order[: len(now)] != USED
    ours, theirs = (free_blocks_of(free, PAGEBLOCK_ORDER) for free in (ours_free & ~taken, theirs_free))
    return None if ours == theirs else Difference(step, "order9_free_blocks", ours, theirs)


def first_difference(step: str, field: str, ours: I64, theirs: I64) -> Difference | None:
    """Return the first row in which two arrays differ, or their lengths; None if they are equal."""
    common = min(len(ours), len(theirs))
    unequal = np.argwhere(ours[:common] != theirs[:common])
    if len(unequal):
        at = int(unequal[0, 0])
        return Difference(step, f"{field}[{at}]", ours[at].tolist(), theirs[at].tolist())
    if len(ours) != len(theirs):
        return Difference(step, f"{field}.length", len(ours), len(theirs))
    return None
