"""Replaying records of compaction for allocations, and of kcompactd.

What direct compaction does depends on the order of the kernel's free lists, which newer records have, and on
when kswapd gets to run, which is chance. So the number of blocks obtained is compared, within a spread. A
compaction that did not end on the recorded kernel, but was killed, must be one that the simulation gives up.
kcompactd does not search the lists; its moves are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.scripted import ScriptedDriver
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import MigrateType
from cluster.compaction.replay.blocks import first_difference
from cluster.compaction.replay.migration_record import (
    apply_behaviour,
    free_lists_of,
    memory_of,
    moves_of,
    rules_of,
)
from cluster.compaction.zone.direct_compact import MAX_RECLAIM_RETRIES, Allocation
from cluster.compaction.zone.kcompactd import Proactive
from cluster.script.record import Difference, Json, RecordError

#: Allowed difference, as a part of the number of blocks: repetitions on the recorded kernel differ as much.
SPREAD = 0.15
LEAST_SPREAD = 2
_ASYNC, _SYNC_LIGHT = MigrateMode.ASYNC, MigrateMode.SYNC_LIGHT

#: by name of a recorded request: the migrate type of its pages, and the modes of compaction
_REQUESTS = {
    "noretry": (MigrateType.MOVABLE, (_ASYNC, _ASYNC)),
    "mayfail": (MigrateType.MOVABLE, (_ASYNC, _SYNC_LIGHT)),
    "kmayfail": (MigrateType.UNMOVABLE, (_ASYNC, _SYNC_LIGHT)),
}


def compare_direct(record: Json) -> Difference | None:
    """Replay N allocations of order O, until one fails (`order O GFP N`), or kcompactd (`proactive`).

    `killed COMMAND S`: the command was ended by a signal after S seconds; in the command, `_` is a space.
    """
    trigger = record["trigger"].split()
    if trigger[0] == "proactive":
        return _compare_proactive(record)
    if trigger[0] == "killed":
        return _compare_killed(record, trigger[1].replace("_", " "))
    theirs = len(record["runs"][0]["o9_at"])
    ours = [obtained(record, hints=False)]
    if record["warmed_up"]:
        # compactions before left hints; whether kswapd forgot them in time is chance
        ours.append(obtained(record, hints=True))
    spread = max(round(SPREAD * theirs), LEAST_SPREAD)
    if min(ours) - spread <= theirs <= max(ours) + spread:
        return None
    return Difference("run 0", "blocks obtained", ours if len(ours) > 1 else ours[0], theirs)


def obtained(record: Json, *, hints: bool) -> int:
    """Return how many allocations succeed.

    hints: every pageblock was found useless before, and kswapd does not come to forget that.
    """
    memory, _driver = start(record)
    memory.pages.skip[:] = hints
    memory.kswapd.failures = MAX_RECLAIM_RETRIES if hints else 0
    return sum(made.pfn is not None for made in requests(record, memory, record["trigger"]))


def requests(record: Json, memory: Memory, command: str) -> Iterator[Allocation]:
    """Make the requests of a command `order O GFP N` until one fails; yield each."""
    word, order, how, count = command.split()
    if word != "order" or how not in _REQUESTS:
        raise RecordError(f"unknown trigger {record['trigger']!r}")
    migratetype, modes = _REQUESTS[how]
    for _ in range(int(count)):
        allocation = Allocation(memory, int(order), migratetype, modes, rules_of(record))
        allocation.run()
        yield allocation
        if allocation.pfn is None:
            return


def start(record: Json) -> tuple[Memory, ScriptedDriver]:
    memory, driver, _lru = memory_of(record, record["states"][0])
    for behaviour in record["behaviour"]:
        apply_behaviour(driver, behaviour["rule"])
    for zone, lists in zip(memory.zones, free_lists_of(record["states"][0], len(memory.zones)), strict=False):
        zone.keep_lists(grows=rules_of(record).pcp_grows).set_lists(lists)
    return memory, driver


def _compare_killed(record: Json, command: str) -> Difference | None:
    """Compare that the command does not end, and what moved until it was killed."""
    memory, _driver = start(record)
    moves = [pair for allocation in requests(record, memory, command) for pair in allocation.moves]
    if not memory.vmstat.compact_endless:
        return Difference("run 0", "ends", "yes", "killed")
    return first_difference("run 0", "moves", rows(moves), moves_of(record["runs"][0]))


def _compare_proactive(record: Json) -> Difference | None:
    memory, driver = start(record)
    proactive = Proactive(memory, 100, rules_of(record))
    proactive.run()
    ours, theirs = rows(proactive.moves), moves_of(record["runs"][0])
    ours = ours[driver.page_at[ours[:, 1]] >= 0]
    if record["runs"][0]["summary"]["other_migrated"]:
        # the recorded system's own pages moved too, not all of which a map shows
        return first_difference("run 0", "sources", np.unique(ours[:, 0]), np.unique(theirs[:, 0]))
    return first_difference("run 0", "moves", ours, theirs)


def rows(moves: list[tuple[I64, I64]]) -> I64:
    """Return (source, target) of each move. int64[moves, 2]."""
    pairs = [np.column_stack(pair) for pair in moves]
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
