"""ksmd's own objects: what it keeps of processes, of pages, and of the pages it merged.

Source: the struct comments at the head of `mm/ksm.c`.
"""

from __future__ import annotations

from enum import Enum

from cluster.arrays.rbtree import RbNode
from cluster.exact.objects import Frame, Mm, Region


class MmSlot:
    """A process that takes part, and its rmap_items in ascending address order."""

    __slots__ = ("mm", "next")

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        #: the first rmap_item
        self.next: RmapItem | None = None


class RmapItem(RbNode):
    """What ksmd knows of one page of one process; a node of the unstable tree while it waits there."""

    __slots__ = (
        "address",
        "age",
        "head",
        "index",
        "next",
        "nid",
        "oldchecksum",
        "put_in_as",
        "region",
        "remaining_skips",
        "seqnr",
    )

    def __init__(self, region: Region, index: int) -> None:
        super().__init__()
        self.region = region
        self.index = index
        self.address = region.start + index
        #: the next rmap_item of the process
        self.next: RmapItem | None = None
        #: content at the last visit: a checksum that never collides
        self.oldchecksum: int | None = None
        #: visits that did not find it merged, with smart_scan on; at most 255
        self.age = 0
        #: passes that smart_scan still leaves it out of
        self.remaining_skips = 0
        #: the stable node it hangs on (STABLE_FLAG)
        self.head: StableNode | None = None
        #: the pass in which it was put into the unstable tree (UNSTABLE_FLAG)
        self.seqnr: int | None = None
        #: which unstable tree that was, and the key of the content it was put in with
        self.nid = 0
        self.put_in_as = -1


class Place(Enum):
    """Where a stable node is linked."""

    TREE = "in a stable tree"
    DUP = "in a chain"
    MIGRATE = "in migrate_nodes, its frame having moved to another node"


class StableNode(RbNode):
    """One KSM page and the rmap_items that share it."""

    __slots__ = ("chain", "frame", "items", "nid", "place")

    def __init__(self, frame: Frame, nid: int) -> None:
        super().__init__()
        self.frame = frame
        #: which stable tree it belongs to, not always the node of its frame
        self.nid = nid
        self.place = Place.TREE
        #: the chain it is a dup of
        self.chain: Chain | None = None
        self.items: dict[RmapItem, None] = {}


class Chain(RbNode):
    """Stands in a stable tree for several stable nodes of one content, the dups: newest first."""

    __slots__ = ("dups", "key", "prune_time")

    def __init__(self, key: int, now_ms: int) -> None:
        super().__init__()
        #: that of the frames
        self.key = key
        self.dups: list[StableNode] = []
        self.prune_time = now_ms
