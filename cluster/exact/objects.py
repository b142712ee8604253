"""The objects of the simulated memory: frames, page table entries, mappings and processes.

Source of the concepts: `include/linux/mm_types.h`. Addresses are page numbers throughout.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from cluster.mm.anon_vma import AnonVmas

if TYPE_CHECKING:
    from cluster.exact.nodes import MmSlot, StableNode

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
        self.ptes: set[tuple[Region, int]] = set()
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


class Zero(Enum):
    """A page table entry of the shared zero page: who mapped it."""

    READ = "a read of a page never written"
    KSM = "ksmd, in place of a page of zeros"


Pte = Frame | SwapEntry | Zero | None


class Region:
    """One private anonymous mapping, of one VMA or several."""

    __slots__ = ("mapped", "mergeable", "mm", "name", "node", "pte", "start")

    def __init__(self, mm: Mm, name: str, start: int, pages: int, node: int | None) -> None:
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


class Mm:
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
        self.regions: list[Region] = []
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
