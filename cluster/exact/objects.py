"""The objects of the exact engine: memory (frames, mappings, processes), and what ksmd keeps of it.

They refer to each other, so they share a module. Sources: `include/linux/mm_types.h`, and the struct comments
at the head of `mm/ksm.c`. Addresses are page numbers throughout.
"""

from __future__ import annotations

from enum import Enum

from cluster.arrays.rbtree import RbNode
from cluster.mm.anon_vma import AnonVmas
from cluster.script.engine import HUGE_PAGES

FIRST_PAGE = 0x1000000  #: address of the first region of a process
REGION_PAGES = 0x40000  #: distance of two regions, so also the most pages that a region can have


class Frame:
    """A physical page: an anonymous page or a KSM page."""

    __slots__ = (
        "content",
        "huge",
        "key",
        "ksm",
        "node",
        "pfn",
        "pinned",
        "poisoned",
        "ptes",
        "stable_node",
        "swap",
    )

    def __init__(self, pfn: int, node: int, content: int, key: int) -> None:
        self.pfn = pfn
        self.node = node
        self.content = content
        #: orders frames as memcmp orders their bytes
        self.key = key
        #: PageKsm
        self.ksm = False
        #: has a reference that is neither a mapping nor the swap cache's
        self.pinned = False
        #: its memory has failed (PG_hwpoison): it is in use for ever
        self.poisoned = False
        #: what the mapping field of a KSM page points to
        self.stable_node: StableNode | None = None
        #: the page table entries that map this frame; their number is the map count
        self.ptes: set[tuple[ExactRegion, int]] = set()
        #: the entry of the swap cache that this frame belongs to
        self.swap: SwapEntry | None = None
        #: the huge page that it is a part of
        self.huge: HugePage | None = None


class HugePage:
    """A large folio: the frames of 512 neighbouring pages, including pages that no process maps any more."""

    __slots__ = ("exclusive", "frames", "partially_mapped", "pinned", "pmds")

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        for frame in frames:
            frame.huge = self
        #: the PMDs that map it: region and block
        self.pmds: set[tuple[ExactRegion, int]] = set()
        #: whether each page may be written without a look at its other mappings (PageAnonExclusive)
        self.exclusive = bytearray(b"\1" * HUGE_PAGES)
        #: some of its pages have lost their last mapping
        self.partially_mapped = False
        #: its pages that were pinned
        self.pinned: list[Frame] = []

    def is_pinned(self) -> bool:
        """Return whether it is pinned; unmapping a page ends its pin."""
        return any(frame.ptes for frame in self.pinned)


class SwapEntry:
    """A page in swap, and its frame in the swap cache, if any."""

    __slots__ = ("content", "count", "frame", "key")

    def __init__(self, content: int, key: int) -> None:
        self.content = content
        self.key = key
        #: how many page table entries refer to it
        self.count = 0
        self.frame: Frame | None = None


class ZeroPte(Enum):
    """A page table entry of the shared zero page, by what mapped it."""

    READ = "a read of a page never written"
    KSM = "ksmd, in place of a page of zeros"


class HwPoisonPte(Enum):
    """A page table entry of a page whose memory has failed; its frame is lost."""

    PTE = "hwpoison entry"


Pte = Frame | SwapEntry | ZeroPte | HwPoisonPte | None


class ExactRegion:
    """A private anonymous mapping, of one VMA or several."""

    __slots__ = (
        "huge_zero",
        "mapped",
        "mergeable",
        "mm",
        "name",
        "node",
        "page_tables",
        "pmd",
        "pte",
        "start",
        "thp",
    )

    def __init__(self, mm: ExactMm, name: str, start: int, pages: int, node: int | None) -> None:
        self.mm = mm
        self.name = name
        self.start = start
        #: the node that its memory is bound to
        self.node = node
        self.pte: list[Pte] = [None] * pages
        self.mapped = bytearray(b"\1" * pages)
        #: VM_MERGEABLE
        self.mergeable = bytearray(pages)
        #: whether it was advised MADV_HUGEPAGE
        self.thp = False
        #: the huge pages that it maps by a PMD: page i belongs to block i // 512
        self.pmd: dict[int, HugePage] = {}
        #: the blocks that map the huge zero page by a PMD
        self.huge_zero: set[int] = set()
        #: the blocks that have kept a page table, with or without entries
        self.page_tables: set[int] = set()

    def __len__(self) -> int:
        return len(self.pte)

    def mapped_by_pmd(self, index: int) -> bool:
        """Return whether a PMD maps the page."""
        return index // HUGE_PAGES in self.pmd or index // HUGE_PAGES in self.huge_zero


class ExactMm:
    """A process: its mappings, and KSM's counts for it."""

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
        #: unique, also among ended processes
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
        """Return whether any of its memory is VM_MERGEABLE."""
        return any(1 in region.mergeable for region in self.regions)


class MmSlot:
    """A process in ksmd's list, and its rmap_items by ascending address."""

    __slots__ = ("mm", "next")

    def __init__(self, mm: ExactMm) -> None:
        self.mm = mm
        #: the first rmap_item
        self.next: RmapItem | None = None


class RmapItem(RbNode):
    """What ksmd knows of one page of one process; also the node of the unstable tree."""

    __slots__ = (
        "address",
        "age",
        "head",
        "index",
        "inserted_key",
        "next",
        "nid",
        "oldchecksum",
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
        #: visits that found it not merged, with smart_scan on; at most 255
        self.age = 0
        #: passes in which smart_scan will still skip it
        self.remaining_skips = 0
        #: the stable node that it shares (STABLE_FLAG)
        self.head: StableNode | None = None
        #: the pass in which it was inserted into an unstable tree (UNSTABLE_FLAG)
        self.seqnr: int | None = None
        #: the unstable tree, and the key of its content at the time of insertion
        self.nid = 0
        self.inserted_key = -1

    def leave_stable_node(self, *, forget: bool) -> None:
        """Let go of the stable node; `forget` as in `Profile.leaving_forgets`."""
        self.head = None
        if forget:
            self.oldchecksum = None
            self.age = self.remaining_skips = 0


class Place(Enum):
    """Where a stable node is linked."""

    TREE = "in a stable tree"
    DUP = "in a chain"
    MIGRATE = "in migrate_nodes, because its frame has moved to another node"


class StableNode(RbNode):
    """A KSM page, and the rmap_items that share it."""

    __slots__ = ("chain", "frame", "items", "nid", "place")

    def __init__(self, frame: Frame, nid: int) -> None:
        super().__init__()
        self.frame = frame
        #: the stable tree that it belongs to, not always the node of its frame
        self.nid = nid
        self.place = Place.TREE
        #: the chain it is a dup of
        self.chain: Chain | None = None
        self.items: dict[RmapItem, None] = {}


class Chain(RbNode):
    """The entry of a stable tree for several stable nodes of one content, its dups: newest first."""

    __slots__ = ("dups", "key", "prune_time")

    def __init__(self, key: int, now_ms: int) -> None:
        super().__init__()
        #: the key of the frames
        self.key = key
        self.dups: list[StableNode] = []
        self.prune_time = now_ms
