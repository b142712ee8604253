"""Results of a compaction: what became of each node's memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.internode.node_transfers import NodeTraffic
from cluster.compaction.movable.counting import MoveCounts
from cluster.wire.rmap_walks import NO_WALKS, RmapWalks


@dataclass(frozen=True, slots=True, eq=False)
class NodeReport:
    """What became of a node.

    before, after, without: free blocks by order (int64[11]) before the compaction, after it, and after a
    compaction in which no driver's page can move; that is as `after` if there is no driver. obtained_*:
    blocks that the scenario's requests got then.
    by_driver: drivers in the order of the scenario, then LRU pages and foreign pages. vmstat: as in
    `memory.VmStat`. seconds: simulated time of the compactors.
    traffic: pages sent to other nodes; None if the scenario has no relocations. walks: over KSM frames.
    """

    node: int
    before: I64
    after: I64
    without: I64
    obtained_before: int
    obtained_after: int
    obtained_without: int
    by_driver: dict[str, MoveCounts]
    vmstat: dict[str, int]
    seconds: float
    traffic: NodeTraffic | None = None
    walks: RmapWalks = NO_WALKS


def blocks_of(buddyinfo: I64, order: int) -> int:
    """Return how many blocks of `order` free memory holds, those inside larger ones counted. int64[11]."""
    return int((buddyinfo[order:] << np.arange(len(buddyinfo) - order)).sum())


def unusable_index(buddyinfo: I64, order: int) -> int:
    """Return how many thousandths of the free memory a request of `order` cannot use. int64[11].

    Models unusable_show_print() (mm/vmstat.c).
    """
    free = blocks_of(buddyinfo, 0)
    suitable = blocks_of(buddyinfo, order) << order
    return (free - suitable) * 1000 // free if free else 1000
