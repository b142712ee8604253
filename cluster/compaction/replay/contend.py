"""Replaying records of zram pages that are compacted while another CPU reads them."""

from __future__ import annotations

import re

import numpy as np

from cluster.compaction.drivers.zsmalloc import Zram
from cluster.compaction.movable.counting import Counted
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PageMap
from cluster.compaction.replay.blocks import compact_all
from cluster.compaction.replay.migration_record import chosen, rules_of
from cluster.script.record import Difference, Json

_PAGES_OF_MIB = 256


def compare_contend(record: Json) -> Difference | None:
    """Fill memory with the recorded slots, discard the same ones, and compact as often.

    Compared are the numbers of slots discarded and left, and how often zsmalloc refuses to move a page. How
    many pages move depends on the places of the slots and on the reader, which the record does not show.
    """
    params = record["params"]
    pages = PageMap(record["guest"]["mem"] * _PAGES_OF_MIB)
    pages.set_free(np.ones(pages.count, np.bool_))
    memory = Memory(pages, [Zone(pages, 0, pages.count)])
    zram = Zram(memory, object_size=params["comp"])
    counted = Counted(memory, zram.owner)
    slots = zram.allocate(params["slots"])
    gone = chosen(np.arange(len(slots)), params["pseed"], params["punit"], params["ppct"])
    zram.discard(slots[gone])
    discarded = int(np.count_nonzero(gone))
    ours = {"punch": f"discarded {discarded} errors 0", "data_check": f"good {len(slots) - discarded} bad 0"}
    for field, text in ours.items():
        if text != record[field]:
            return Difference("run 0", field, text, record[field])
    for number, run in enumerate(record["runs"]):
        counted.begin()
        compact_all(memory, rules_of(record))
        refused = counted.attempts - counted.counts.moved
        theirs = sum(
            int(count) for count in re.findall(r"(?:again|busy|other) (\d+)", run["zs_page_migrate"])
        )
        if refused != theirs:
            return Difference(f"run {number}", "zs_page_migrate refused", refused, theirs)
    return None
