"""Building the start of a recorded run of a driver's calls, and pulling its trigger.

Such records do not show the whole memory. The replay puts the driver's pages where they were, frees the top
of the last zone, and fills everything else with pages that cannot move.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.scripted import ScriptedDriver
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES, PageKind, PageMap
from cluster.compaction.replay.migration_record import rules_of
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.contig_range import ContigRange
from cluster.compaction.zone.offline_pages import Offline, soft_offline_page
from cluster.script.record import Json, RecordError

_DMA_END = 4096
_LAST_RESERVED = 32  #: pages that the firmware keeps at the end of the memory
_MEMORY_BLOCK = 32768  #: pages of /sys/devices/system/memory/memoryN
_FREE_PAGEBLOCKS = 4
_MAX_ROUNDS = 1000

#: settings of a page in a script, and the fields of `Scripts` that they are
SCRIPT_FIELDS = {
    "iso": "refusals",
    "err": "error",
    "k": "failures",
    "rel": "rel",
    "relerr": "relerr",
    "peer": "peer",
}
DELAYS = ("slmig", "sliso")  #: milliseconds that a call takes


@dataclass(slots=True)
class CallSetting:
    """A memory with a scripted driver, as at the start of a recorded run.

    ids int64[pages]: ids in the record of the driver's pages 0, 1, ... scripts: by setting, int64 by page id.
    """

    memory: Memory
    driver: ScriptedDriver
    ids: I64
    scripts: dict[str, I64]
    rules: CompactionRules

    def calls(self) -> list[tuple[int, str, int]]:
        """Return all calls of the driver so far: (page id, operation, answer)."""
        ids = self.ids.tolist()
        return [(ids[event.page], event.op, event.answer) for event in self.driver.scripts.events]


def parse_scripts(lines: Iterable[str], pages: int) -> dict[str, I64]:
    """Read lines `A B key=value...` about pages A..B; return int64[pages + 1] by setting.

    Raises RecordError for an unknown setting.
    """
    scripts = {key: np.zeros(pages + 1, np.int64) for key in (*SCRIPT_FIELDS, *DELAYS)}
    for line in lines:
        first, last, *settings = line.split()
        for setting in settings:
            key, value = setting.split("=")
            if key not in scripts:
                raise RecordError(f"unknown setting {key!r} in the script {line!r}")
            scripts[key][int(first) : int(last) + 1] = int(value)
    return scripts


def build_setting(record: Json, before: list[list[int]], scripts: dict[str, I64], run: Json) -> CallSetting:
    """Build the memory in which a run starts. `before`: the recorded state of the driver's pages."""
    end = record["guest"]["mem"] * 256 - _LAST_RESERVED
    there = np.array([page[:2] for page in before if page[1] and page[2]], np.int64).reshape(-1, 2)
    ids, pfns = there[:, 0], there[:, 1]
    pages = PageMap(end)
    pages.kind[:] = PageKind.KERNEL
    free = np.zeros(end, np.bool_)
    free[_free_pages(end, run)] = True
    free[pfns] = False
    pages.set_free(free)
    if (wanted := contig_range(run)) and (types := contig_types(run)):
        pages.set_pageblock_type(wanted[0] // PAGEBLOCK_PAGES, types[0])
    memory = Memory(pages, [Zone(pages, 1, _DMA_END, "DMA"), Zone(pages, _DMA_END, end, "DMA32")])
    driver = ScriptedDriver(memory, log=True)
    driver.adopt(pfns)
    for key, name in SCRIPT_FIELDS.items():
        setattr(driver.scripts, name, scripts[key][ids])
    driver.scripts.peer = np.searchsorted(ids, driver.scripts.peer)
    return CallSetting(memory, driver, ids, scripts, rules_of(record))


def _free_pages(end: int, run: Json) -> I64:
    """Return targets at the top, in pageblocks that are not free as a whole, and the range that is wanted."""
    wanted = contig_range(run) or _memory_block(run) or (0, 0)
    size = _FREE_PAGEBLOCKS * PAGEBLOCK_PAGES
    above = wanted[0] if wanted[1] > end - size else end
    top = np.arange(above // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES - size, end)
    outside = (top < wanted[0]) | (top >= wanted[1])
    return np.concatenate([top[outside & (top % PAGEBLOCK_PAGES > 0)], np.arange(*wanted)])


def contig_range(run: Json) -> tuple[int, int] | None:
    """Return the page frames that the run asked alloc_contig_range() for; None if it did not."""
    match = re.match(r"contig \S+ pfn (\d+) nr (\d+)", run["answer"])
    return (int(match[1]), int(match[1]) + int(match[2])) if match else None


def contig_types(run: Json) -> tuple[int, int] | None:
    """Return the types of the range's pageblock before and after the run; None if they are not recorded."""
    match = re.search(r" mt (\d) (\d)", run["answer"])
    return (int(match[1]), int(match[2])) if match else None


def _memory_block(run: Json) -> tuple[int, int] | None:
    match = re.match(r"/sys/devices/system/memory/memory(\d+)/", run["answer"])
    return (int(match[1]) * _MEMORY_BLOCK, (int(match[1]) + 1) * _MEMORY_BLOCK) if match else None


def pull_trigger(trigger: str, setting: CallSetting, run: Json) -> str:
    """Do what the record's trigger did; return what is compared of its answer.

    Raises RecordError if the trigger is unknown.
    """
    memory, rules = setting.memory, setting.rules
    if trigger == "compact":
        for zone in memory.zones:
            Compaction(memory, zone, rules=rules, grain=1).run()
    elif trigger.startswith("soft"):
        number = int(np.searchsorted(setting.ids, int(trigger.removeprefix("soft"))))
        soft_offline_page(memory, int(setting.driver.frame_of[number]), rules=rules)
    elif trigger == "contig" and (wanted := contig_range(run)):
        error = ContigRange(memory, *wanted, rules=rules, grain=1).run()
        answer = f"contig {error} pfn {wanted[0]} nr {wanted[1] - wanted[0]}"
        types = contig_types(run)
        type_after = memory.pages.pageblock_type[wanted[0] // PAGEBLOCK_PAGES]
        return answer if types is None else f"{answer} mt {types[0]} {type_after}"
    elif trigger == "offline" and (wanted := _memory_block(run)):
        Offline(memory, *wanted, rules=rules, grain=1).run(_MAX_ROUNDS)
    else:
        raise RecordError(f"unknown trigger {trigger!r}")
    return ""
