"""The objects of the simulated memory: frames, page table entries, mappings and processes.

Source of the concepts: `include/linux/mm_types.h`. Addresses are page numbers throughout.
"""

from __future__ import annotations

from enum import Enum

from cluster.arrays.rbtree import RbNode
from cluster.mm.anon_vma import AnonVmas

FIRST_PAGE = 0x1000000  #: where a process's first region lies
REGION_PAGES = 0x40000  #: distance from one region to the next, so also the most pages one can have


class Frame:
    """One physical page, an anonymous one or a KSM page."""

    __slots__ = ("content", "key", "ksm", "node", "pfn", "ptes", "stable_node", "swap")

    def __init__(self, pfn: int, node: int, content: int, key: int) -> None:
        self.pfn = pfn
        self.node = node
        self.content = content
        #: orders frames as memcmp orders their bytes
        self.key = key
        #: PageKsm
        self.ksm = False
        #: what the mapping word of a KSM page points to
        self.stable_node: StableNode | None = None
        #: the page table entries that map this frame; their number is the map count
        self.ptes: set[tuple[ExactRegion, int]] = set()
        #: the swap cache entry this frame belongs to
        self.swap: SwapEntry | None = None


class SwapEntry:
    """A page in swap, and the frame that the swap cache has for it."""

    __slots__ = ("content", "count", "frame", "key")

    def __init__(self, content: int, key: int) -> None:
        self.content = content
        self.key = key
        #: page table entries that refer to it
        self.count = 0
        self.frame: Frame | None = None


class ZeroPte(Enum):
    """A page table entry of the shared zero page: who mapped it."""

    READ = "a read of a page never written"
    KSM = "ksmd, in place of a page of zeros"


Pte = Frame | SwapEntry | ZeroPte | None


class ExactRegion:
    """One private anonymous mapping, of one VMA or several."""

    __slots__ = ("mapped", "mergeable", "mm", "name", "node", "pte", "start")

    def __init__(self, mm: ExactMm, name: str, start: int, pages: int, node: int | None) -> None:
        self.mm = mm
        self.name = name
        self.start = start
        #: the node its memory is bound to
        self.node = node
        self.pte: list[Pte] = [None] * pages
        self.mapped = bytearray(b"\1" * pages)
        #: VM_MERGEABLE
        self.mergeable = bytearray(pages)

    def __len__(self) -> int:
        return len(self.pte)


class ExactMm:
    """A process: its mappings and what KSM counts for it."""

    __slots__ = (
        "alive",
        "anon_vmas",
        "merge_any",
        "merging_pages",
        "name",
        "number",
        "regions",
        "rmap_items",
        "slot",
        "zero_pages",
    )

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        #: no other process has had this one
        self.number = number
        self.alive = True
        self.regions: list[ExactRegion] = []
        self.anon_vmas = AnonVmas()
        #: set while ksmd knows the process (MMF_VM_MERGEABLE)
        self.slot: MmSlot | None = None
        #: MMF_VM_MERGE_ANY
        self.merge_any = False
        self.merging_pages = 0
        self.rmap_items = 0
        self.zero_pages = 0

    def mergeable(self) -> bool:
        """Whether any of its memory is VM_MERGEABLE."""
        return any(1 in region.mergeable for region in self.regions)


class MmSlot:
    """A process that takes part, and its rmap_items in ascending address order."""

    __slots__ = ("mm", "next")

    def __init__(self, mm: ExactMm) -> None:
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

    def __init__(self, region: ExactRegion, index: int) -> None:
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
