"""Replaying records of two compactors at work at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LOCKED
from cluster.compaction.replay.call_sequences import differing_sequence
from cluster.compaction.replay.call_setting import DELAYS, CallSetting
from cluster.compaction.zone.compact_zone import Compaction
from cluster.script.record import Difference, Json

_FLAG_ISOLATED = 8  #: in recorded flags


def compare_two(step: str, setting: CallSetting, delay: int, run: Json) -> Difference | None:
    """Let two compactors work, the second from `delay` ms on; compare with the record.

    Calls are compared if one is so slow that the second compactor must come in between. In a race, only
    invariants are checked: of the replay, and of the record.
    """
    slow = {key: setting.scripts[key][setting.ids] for key in DELAYS}
    _run_two(setting, delay, slow)
    if delay and any(times.any() for times in slow.values()):
        difference = differing_sequence(step, setting, run)
        if difference:
            return difference
    if run["isolated_twice_at_once"]:
        return Difference(step, "isolated_twice_at_once", 0, run["isolated_twice_at_once"])
    theirs = [(event[1], str(event[0]), event[5]) for event in run["events"]]
    cut = run["events_total"] > len(theirs)
    for whose, calls, complete in (("ours", setting.calls(), True), ("theirs", theirs, not cut)):
        if (broken := _broken_rule(calls, complete=complete)) is not None:
            return Difference(step, f"a page isolated twice or left isolated, {whose}", broken, None)
    if any(page[7] & _FLAG_ISOLATED for page in run["pages_after"]):
        return Difference(step, "pages_after", "none isolated", "isolated")
    flags = setting.memory.pages.flags
    held = int(np.count_nonzero(flags & (PG_LOCKED | PG_ISOLATED)))
    return Difference(step, "pages locked or isolated", held, 0) if held else None


def _run_two(setting: CallSetting, delay: int, slow: dict[str, I64]) -> None:
    """Run two compactors in simulated time, in which only slow calls take any.

    `slow`: by setting, how many ms a call takes, int64 by the driver's page number.
    """
    memory, numbers = setting.memory, setting.driver.page_at
    clocks = [0, delay]
    waiting: list[list[Zone]] = [list(memory.zones), list(memory.zones)]
    current: list[Compaction | None] = [None, None]
    turn = 0
    while any(waiting) or any(current):
        active = [i for i in (0, 1) if waiting[i] or current[i]]
        who = min(active, key=lambda i: (clocks[i], i != turn))
        turn = 1 - who
        compaction = current[who]
        if compaction is None:
            compaction = current[who] = Compaction(memory, waiting[who].pop(0), rules=setting.rules, grain=1)
        met = memory.vmstat.lock_waits + memory.vmstat.migrate_locked
        compaction.step()
        for key, held in (("slmig", compaction.migrating), ("sliso", compaction.isolating)):
            clocks[who] += int(slow[key][numbers[held]].sum())
        if compaction.waiting or memory.vmstat.lock_waits + memory.vmstat.migrate_locked > met:
            clocks[who] = max(clocks)
        if compaction.done:
            current[who] = None


def _broken_rule(calls: Iterable[tuple[int, str, int]], *, complete: bool) -> str | None:
    """Return the first call that breaks the rule, or a page that is never given back; None if there is none.

    The rule: a page is isolated by one compactor at a time, and moved or put back only while it is isolated.
    """
    isolated: set[int] = set()
    for page, op, answer in calls:
        if op == "I" and answer:
            if page in isolated:
                return f"page {page}: I while isolated"
            isolated.add(page)
        elif op in "MP" and page not in isolated:
            return f"page {page}: {op} while not isolated"
        elif op in "PRk" or (op == "M" and not answer):
            isolated.discard(page)
    return f"page {min(isolated)}: never given back" if isolated and complete else None
