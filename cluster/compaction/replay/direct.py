"""Replaying records of compaction for allocations, and of kcompactd.

What direct compaction does depends on the order of the kernel's free lists and on when kswapd goes to sleep.
A record shows neither, so the number of blocks obtained is compared, within a spread. kcompactd does not
search the lists; its moves are compared one by one.
"""

from __future__ import annotations

import numpy as np

from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import MigrateType
from cluster.compaction.replay.blocks import first_difference
from cluster.compaction.replay.migration_record import apply_behaviour, memory_of, moves_of, rules_of
from cluster.compaction.zone.direct_compact import Allocation
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
    """Replay N allocations of order O, until one fails (`order O GFP N`), or kcompactd (`proactive`)."""
    trigger = record["trigger"].split()
    if trigger[0] == "proactive":
        return _compare_proactive(record)
    if trigger[0] != "order" or trigger[2] not in _REQUESTS:
        raise RecordError(f"unknown trigger {record['trigger']!r}")
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
    """Return how many allocations succeed; with `hints`, every pageblock was found useless before."""
    _order, order, how, count = record["trigger"].split()
    memory = _start(record)
    memory.pages.skip[:] = hints
    migratetype, modes = _REQUESTS[how]
    for done in range(int(count)):
        if Allocation(memory, int(order), migratetype, modes, rules_of(record)).run() is None:
            return done
    return int(count)


def _start(record: Json) -> Memory:
    memory, driver, _lru = memory_of(record, record["states"][0])
    for behaviour in record["behaviour"]:
        apply_behaviour(driver, behaviour["rule"])
    return memory


def _compare_proactive(record: Json) -> Difference | None:
    memory = _start(record)
    proactive = Proactive(memory, 100, rules_of(record))
    proactive.run()
    run = record["runs"][0]
    pairs = [np.column_stack(pair) for pair in proactive.moves]
    moves = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    if run["summary"]["other_migrated"]:
        ours, theirs = memory.free_blocks(9), record["states"][1]["order9_free_blocks"]
        return None if ours == theirs else Difference("run 0", "order9_free_blocks", ours, theirs)
    return first_difference("run 0", "moves", moves, moves_of(run))
