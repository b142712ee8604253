"""Replaying records of a driver's calls: the same scripts and trigger, the same calls in the same order.

Such records do not show the whole memory (see `call_setting`), so the comparison is of what the driver sees:
calls in their order, answers, page flags, which target is offered again to which page, and counters without
the pages of the recorded system itself.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.scripted import ScriptedEvent
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LOCKED
from cluster.compaction.replay.call_sequences import differing_sequence
from cluster.compaction.replay.call_setting import (
    SCRIPT_FIELDS,
    CallSetting,
    build_setting,
    contig_range,
    parse_scripts,
    pull_trigger,
)
from cluster.compaction.replay.two_compactors import compare_two
from cluster.script.record import Difference, Json


def compare_calls(record: Json) -> Difference | None:
    """Replay every run of the record, each from the recorded pages; return the first difference."""
    trigger = record["trigger"].split()
    scripts = parse_scripts(record["scripts"], record["n_pages"])
    before = record["pages_before"]
    for number, run in enumerate(record["runs"]):
        setting = build_setting(record, before, scripts, run)
        step = f"run {number}"
        if trigger[0] == "par":
            difference = compare_two(step, setting, int(trigger[-1]), run)
        else:
            answer = pull_trigger(trigger[0], setting, run)
            difference = _compare_one(step, trigger[0], setting, run)
            if answer and difference is None and answer != run["answer"].strip():
                difference = Difference(step, "answer", answer, run["answer"].strip())
        if difference:
            return difference
        for key, name in SCRIPT_FIELDS.items():
            scripts[key][setting.ids] = getattr(setting.driver.scripts, name)
        before = run["pages_after"]
    return None


def _compare_one(step: str, trigger: str, setting: CallSetting, run: Json) -> Difference | None:
    return (
        differing_sequence(step, setting, run)
        or _compare_events(step, trigger, setting, run)
        or _compare_counters(step, setting, run)
        or _compare_after(step, setting, run)
    )


def _compare_events(step: str, trigger: str, setting: CallSetting, run: Json) -> Difference | None:
    """Compare all calls in their order, if the record holds all of them."""
    if len(run["events"]) != run["events_total"]:
        return None
    targets = trigger == "compact"
    ours = _labeled([_event_of_ours(event, setting.ids) for event in setting.driver.scripts.events], targets)
    # `i`: isolate is asked for pages that the driver gave up before the record begins
    theirs = _labeled([_event_of_theirs(event) for event in run["events"] if event[0] not in "Ci"], targets)
    for at, (our, their) in enumerate(zip_longest(ours, theirs)):
        if our != their:
            return Difference(step, f"events[{at}]", our, their)
    return None


_Call = tuple[str, int, int, list[int]]  #: operation, page id, target, the rest


def _event_of_ours(event: ScriptedEvent, ids: I64) -> _Call:
    rest = [event.mode, event.answer, event.flags_before, event.flags_after]
    if event.op in "IT":
        rest.append(event.refcount)
    return (
        event.op,
        int(ids[event.page]),
        event.newpfn,
        [*rest, event.newflags_before, event.newflags_after],
    )


def _event_of_theirs(event: list[int]) -> _Call:
    rest = event[4:8]
    if str(event[0]) in "IT":
        rest.append(event[8])
    return (str(event[0]), event[1], event[3], [*rest, event[10], event[11]])


def _labeled(calls: list[_Call], targets: bool) -> list[list[object]]:
    """Replace targets by the order of their first appearance, or by 0 unless `targets`."""
    labels: dict[int, int] = {0: 0}
    return [
        [op, page, labels.setdefault(target, len(labels)) if targets else 0, *rest]
        for op, page, target, rest in calls
    ]


def _compare_counters(step: str, setting: CallSetting, run: Json) -> Difference | None:
    """Compare counters of migrations, without pages that are not the driver's where the trace shows them."""
    ours, theirs = setting.memory.vmstat, run["vmstat_delta"]
    failed = theirs.get("pgmigrate_fail", 0)
    if ours.pgmigrate_fail != failed:
        return Difference(step, "pgmigrate_fail", ours.pgmigrate_fail, failed)
    scans = [event for event in run["trace"] if event[3] == "iso_m"]
    if not scans:
        return None
    granted = sum(event[0] == "T" and event[5] == 0 for event in run["events"])
    others = sum(scan[7] for scan in scans) - granted
    migrated = theirs.get("pgmigrate_success", 0) - others
    if ours.pgmigrate_success != migrated:
        return Difference(step, "pgmigrate_success", ours.pgmigrate_success, migrated)
    if contig_range(run):
        isolated = theirs.get("compact_isolated", 0) - others
        if ours.compact_isolated != isolated:
            return Difference(step, "compact_isolated", ours.compact_isolated, isolated)
    return None


def _compare_after(step: str, setting: CallSetting, run: Json) -> Difference | None:
    """Check that nothing is locked or isolated, and that the driver has the same pages as in the record."""
    flags = setting.memory.pages.flags
    if (flags & (PG_LOCKED | PG_ISOLATED)).any():
        return Difference(step, "pages locked or isolated", int(np.count_nonzero(flags)), 0)
    left = [page[0] for page in run["pages_after"] if page[1] and page[2]]
    pfns = setting.driver.frame_of
    mine = setting.ids[(pfns >= 0) & setting.memory.pages.page_movable(np.maximum(pfns, 0))].tolist()
    return None if mine == left else Difference(step, "pages_after", mine, left)
