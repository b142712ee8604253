"""Replaying records of a driver's calls: the same scripts and trigger, the same calls in the same order.

Such records do not show the whole memory. The replay puts the driver's pages where they were, makes the top
of the last zone free, and everything else a page that cannot move. So what is compared is what the driver
sees: calls in their order, answers, page flags, which target is offered again to which page, and counters
less the pages of the recorded system itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.scripted import ScriptedDriver, ScriptedEvent
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES, PG_ISOLATED, PG_LOCKED, PageKind, PageMap
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.contig_range import ContigRange
from cluster.compaction.zone.offline_pages import Offline, soft_offline_page
from cluster.script.record import Difference, Json, RecordError

_DMA_END = 4096
_LAST_RESERVED = 32  #: pages that the firmware keeps at the end of the memory
_MEMORY_BLOCK = 32768  #: pages of /sys/devices/system/memory/memoryN
_FREE_PAGEBLOCKS = 4
_MAX_ROUNDS = 1000
_FLAG_ISOLATED = 8  #: in recorded flags

#: settings of a page in a script, and the fields of `Scripts` that they are
_FIELDS = {
    "iso": "refusals",
    "err": "error",
    "k": "failures",
    "rel": "rel",
    "relerr": "relerr",
    "peer": "peer",
}
_DELAYS = ("slmig", "sliso")  #: milliseconds that a call takes


@dataclass(slots=True)
class _Setting:
    """A replay: `ids` are those of the driver's pages 0, 1, ...; `scripts` by setting and page id."""

    memory: Memory
    driver: ScriptedDriver
    ids: I64
    scripts: dict[str, I64]


def compare_calls(record: Json) -> Difference | None:
    """Every run of the record, each from the pages recorded before it."""
    trigger = record["trigger"].split()
    scripts = _parse(record["scripts"], record["n_pages"])
    before = record["pages_before"]
    for number, run in enumerate(record["runs"]):
        setting = _start(record, before, scripts, run)
        step = f"run {number}"
        if trigger[0] == "par":
            difference = _compare_two(step, setting, int(trigger[-1]), run)
        else:
            _pull(trigger[0], setting, run)
            difference = _compare_one(step, trigger[0], setting, run)
        if difference:
            return difference
        for key, name in _FIELDS.items():
            scripts[key][setting.ids] = getattr(setting.driver.scripts, name)
        before = run["pages_after"]
    return None


def _parse(lines: Iterable[str], pages: int) -> dict[str, I64]:
    """`A B key=value...` for pages A..B, as arrays by page id."""
    scripts = {key: np.zeros(pages + 1, np.int64) for key in (*_FIELDS, *_DELAYS)}
    for line in lines:
        first, last, *settings = line.split()
        for setting in settings:
            key, value = setting.split("=")
            if key not in scripts:
                raise RecordError(f"unknown setting {key!r} in the script {line!r}")
            scripts[key][int(first) : int(last) + 1] = int(value)
    return scripts


def _start(record: Json, before: list[list[int]], scripts: dict[str, I64], run: Json) -> _Setting:
    end = record["guest"]["mem"] * 256 - _LAST_RESERVED
    there = np.array([page[:2] for page in before if page[1] and page[2]], np.int64).reshape(-1, 2)
    ids, pfns = there[:, 0], there[:, 1]
    pages = PageMap(end)
    pages.kind[:] = PageKind.KERNEL
    free = np.zeros(end, np.bool_)
    free[_free_pages(end, run)] = True
    free[pfns] = False
    pages.set_free(free)
    memory = Memory(pages, [Zone(pages, 1, _DMA_END, "DMA"), Zone(pages, _DMA_END, end, "DMA32")])
    driver = ScriptedDriver(memory, log=True)
    driver.adopt(pfns)
    for key, name in _FIELDS.items():
        setattr(driver.scripts, name, scripts[key][ids])
    driver.scripts.peer = np.searchsorted(ids, driver.scripts.peer)
    return _Setting(memory, driver, ids, scripts)


def _free_pages(end: int, run: Json) -> I64:
    """Targets at the top, in pageblocks that are no free blocks themselves; and the range that is wanted."""
    wanted = _contig_range(run) or _memory_block(run) or (0, 0)
    size = _FREE_PAGEBLOCKS * PAGEBLOCK_PAGES
    above = wanted[0] if wanted[1] > end - size else end
    top = np.arange(above // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES - size, end)
    outside = (top < wanted[0]) | (top >= wanted[1])
    return np.concatenate([top[outside & (top % PAGEBLOCK_PAGES > 0)], np.arange(*wanted)])


def _contig_range(run: Json) -> tuple[int, int] | None:
    match = re.match(r"contig \S+ pfn (\d+) nr (\d+)", run["answer"])
    return (int(match[1]), int(match[1]) + int(match[2])) if match else None


def _memory_block(run: Json) -> tuple[int, int] | None:
    match = re.match(r"/sys/devices/system/memory/memory(\d+)/", run["answer"])
    return (int(match[1]) * _MEMORY_BLOCK, (int(match[1]) + 1) * _MEMORY_BLOCK) if match else None


def _pull(trigger: str, setting: _Setting, run: Json) -> None:
    """Do what the record's trigger did."""
    memory = setting.memory
    if trigger == "compact":
        for zone in memory.zones:
            Compaction(memory, zone, grain=1).run()
    elif trigger.startswith("soft"):
        number = int(np.searchsorted(setting.ids, int(trigger.removeprefix("soft"))))
        soft_offline_page(memory, int(setting.driver.frame_of[number]))
    elif trigger == "contig" and (wanted := _contig_range(run)):
        ContigRange(memory, *wanted, grain=1).run()
    elif trigger == "offline" and (wanted := _memory_block(run)):
        Offline(memory, *wanted, grain=1).run(_MAX_ROUNDS)
    else:
        raise RecordError(f"unknown trigger {trigger!r}")


# what the driver saw


def _calls(setting: _Setting) -> list[ScriptedEvent]:
    return setting.driver.scripts.events


def _sequences(events: Iterable[tuple[int, str, int]]) -> dict[str, str]:
    """By page id, its calls in order, repeats counted: from (id, op, answer)."""
    words: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for page, op, answer in events:
        if (word := _word(op, answer)) is None:
            continue
        if words[page] and words[page][-1][0] == word:
            words[page][-1] = (word, words[page][-1][1] + 1)
        else:
            words[page].append((word, 1))
    return {
        str(page): " ".join(word if times == 1 else f"{word}*{times}" for word, times in said)
        for page, said in sorted(words.items())
    }


def _word(op: str, answer: int) -> str | None:
    if op == "I":
        return "I" if answer else "I0"
    if op in "MT" and answer:
        return f"{op}({answer})"
    return None if op in "TC" else op


def _ours(setting: _Setting) -> dict[str, str]:
    ids = setting.ids.tolist()
    return _sequences((ids[event.page], event.op, event.answer) for event in _calls(setting))


def _compare_one(step: str, trigger: str, setting: _Setting, run: Json) -> Difference | None:
    ours, theirs = _ours(setting), run["seq"]
    for page in sorted({*ours, *theirs}, key=int):
        if ours.get(page) != theirs.get(page):
            return Difference(step, f"page {page}", ours.get(page), theirs.get(page))
    if len(run["events"]) == run["events_total"]:
        targets = trigger == "compact"
        mine = [_event_of_ours(event, setting.ids) for event in _calls(setting)]
        yours = [_event_of_theirs(event) for event in run["events"] if event[0] != "C"]
        for at, (ours_, theirs_) in enumerate(zip_longest(_labeled(mine, targets), _labeled(yours, targets))):
            if ours_ != theirs_:
                return Difference(step, f"events[{at}]", ours_, theirs_)
    return _compare_counters(step, setting, run) or _compare_after(step, setting, run)


_Call = tuple[str, int, int, list[int]]


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
    """Targets by their first appearance instead of their pfns, or left out."""
    labels: dict[int, int] = {0: 0}
    return [
        [op, page, labels.setdefault(target, len(labels)) if targets else 0, *rest]
        for op, page, target, rest in calls
    ]


def _compare_counters(step: str, setting: _Setting, run: Json) -> Difference | None:
    """Migrations; successes less those of pages that are not the driver's, where the trace tells them."""
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
    if _contig_range(run):
        isolated = theirs.get("compact_isolated", 0) - others
        if ours.compact_isolated != isolated:
            return Difference(step, "compact_isolated", ours.compact_isolated, isolated)
    return None


def _compare_after(step: str, setting: _Setting, run: Json) -> Difference | None:
    """Afterwards nothing is locked or isolated, and the driver has the pages that it had in the record."""
    flags = setting.memory.pages.flags
    if (flags & (PG_LOCKED | PG_ISOLATED)).any():
        return Difference(step, "pages locked or isolated", int(np.count_nonzero(flags)), 0)
    left = [page[0] for page in run["pages_after"] if page[1] and page[2]]
    pfns = setting.driver.frame_of
    mine = setting.ids[(pfns >= 0) & setting.memory.pages.page_movable(np.maximum(pfns, 0))].tolist()
    return None if mine == left else Difference(step, "pages_after", mine, left)


# two compactors at once


def _compare_two(step: str, setting: _Setting, delay: int, run: Json) -> Difference | None:
    """With a call so slow that the second comes in between, every page's calls; in a race, invariants."""
    slow = {key: setting.scripts[key][setting.ids] for key in _DELAYS}
    _run_two(setting, delay, slow)
    if delay and any(times.any() for times in slow.values()):
        ours, theirs = _ours(setting), run["seq"]
        for page in sorted({*ours, *theirs}, key=int):
            if ours.get(page) != theirs.get(page):
                return Difference(step, f"page {page}", ours.get(page), theirs.get(page))
    if run["isolated_twice_at_once"]:
        return Difference(step, "isolated_twice_at_once", 0, run["isolated_twice_at_once"])
    theirs_calls = [(event[1], str(event[0]), event[5]) for event in run["events"]]
    ids = setting.ids.tolist()
    ours_calls = [(ids[event.page], event.op, event.answer) for event in _calls(setting)]
    for whose, calls in (("ours", ours_calls), ("theirs", theirs_calls)):
        if (broken := _broken_rule(calls)) is not None:
            return Difference(step, f"a page isolated twice or left isolated, {whose}", broken, None)
    if any(page[7] & _FLAG_ISOLATED for page in run["pages_after"]):
        return Difference(step, "pages_after", "none isolated", "isolated")
    flags = setting.memory.pages.flags
    held = int(np.count_nonzero(flags & (PG_LOCKED | PG_ISOLATED)))
    return Difference(step, "pages locked or isolated", held, 0) if held else None


def _run_two(setting: _Setting, delay: int, slow: dict[str, I64]) -> None:
    """The second compactor starts `delay` ms after the first; slow calls take their time, all else none."""
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
            compaction = current[who] = Compaction(memory, waiting[who].pop(0), grain=1)
        met = memory.vmstat.lock_waits + memory.vmstat.migrate_locked
        compaction.step()
        for key, held in (("slmig", compaction.migrating), ("sliso", compaction.isolating)):
            clocks[who] += int(slow[key][numbers[held]].sum())
        if compaction.waiting or memory.vmstat.lock_waits + memory.vmstat.migrate_locked > met:
            clocks[who] = max(clocks)
        if compaction.done:
            current[who] = None


def _broken_rule(calls: Iterable[tuple[int, str, int]]) -> str | None:
    """The first call that two isolations at once would make, or a page never given back; else None."""
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
    return f"page {min(isolated)}: never given back" if isolated else None
