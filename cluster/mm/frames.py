"""Physical frames of one NUMA node (struct page, mm/page_alloc.c).

The two low bits of the `mapping` word say what a frame is, as in the kernel (include/linux/page-flags.h). The
other bits are the node of the process whose anon_vma an anonymous frame has; the content of a KSM frame names
its stable node.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import distinct_below, rows_where
from cluster.arrays.words import (
    HUGE_SIZE,
    I64,
    U8,
    U16,
    U64,
    Array,
    Bool,
    Digests,
    FrameWords,
    Pfns,
    node_of_mm,
    pfn_of,
)
from cluster.spec.content import PAGE_SIZE, page_bytes
from cluster.wire.narrow import Narrow, Steps, narrowed, widened

PAGE_MAPPING_ANON = 0x1
PAGE_MAPPING_MOVABLE = 0x2
PAGE_MAPPING_KSM = PAGE_MAPPING_ANON | PAGE_MAPPING_MOVABLE
PAGE_MAPPING_FLAGS = 0x3
_FLAG_BITS = 2


class Frames:
    """Structure of arrays, one element a frame; memory is used only for frames that were ever allocated.

    mapping uint16; mapcount int16, or int32 since a frame had more mappings than that holds; pins uint16:
    references that are not mappings; content uint64: digest; data uint8[n, PAGE_SIZE] or None. A frame with
    neither mappings nor pins is free.
    """

    def __init__(self, count: int, *, with_bytes: bool) -> None:
        self.count = count
        self.mapping = np.zeros(count, np.uint16)
        self.mapcount: Array = np.zeros(count, np.int16)
        self.pins = np.zeros(count, np.uint16)
        self.content = np.zeros(count, np.uint64)
        self.data: U8 | None = np.zeros((count, PAGE_SIZE), np.uint8) if with_bytes else None
        self._fresh = 0
        #: Pfns of freed frames, `_packed`, in the order in which they were freed.
        self._recycled: list[Array | Narrow] = []
        self._recycled_count = 0
        #: How many KSM frames there are; None if not counted since the last change.
        self._ksm_frames: int | None = None

    @property
    def free_count(self) -> int:
        return self.count - self._fresh + self._recycled_count

    @property
    def used(self) -> int:
        return self.count - self.free_count

    @property
    def ksm_frames(self) -> int:
        """How many KSM frames are in use."""
        if self._ksm_frames is None:
            self._ksm_frames = int(np.count_nonzero(self.is_ksm(self._ever_used)))
        return self._ksm_frames

    @property
    def _ever_used(self) -> slice:
        """The frames that are or have been in use: memory that was never needed costs no time."""
        return slice(self._fresh)

    def ksm_frames_by_mappings(self) -> I64:
        """Return how many KSM frames have 1, 2, 3 to 4, 5 to 8, ... mappings: int64[n], the last not 0."""
        mappings = self.mapcount[np.flatnonzero(self.is_ksm(self._ever_used))]
        # Frames that only the swap cache refers to have none.
        return np.bincount(np.ceil(np.log2(mappings[mappings > 0], dtype=np.float64)).astype(np.int64))

    def in_use(self) -> Pfns:
        """Return the pfns of frames in use, ascending."""
        return np.flatnonzero(self.referenced(self._ever_used))

    def referenced(self, pfns: Pfns | slice) -> Bool:
        """Return which frames have mappings or pins. bool[n]."""
        referenced: Bool = (self.mapcount[pfns] != 0) | (self.pins[pfns] != 0)
        return referenced

    def alloc(self, wanted: int) -> Pfns:
        """Take at most `wanted` free frames: recently freed ones first, then ascending pfns. int64[n]."""
        taken: list[Pfns] = []
        while wanted and self._recycled:
            last = _unpacked(self._recycled.pop())
            if len(last) > wanted:
                self._recycled.append(last[:-wanted].astype(np.uint32, copy=False))
                last = last[-wanted:]
            taken.append(last.astype(np.int64))
            wanted -= len(last)
            self._recycled_count -= len(last)
        fresh = min(wanted, self.count - self._fresh)
        taken.append(np.arange(self._fresh, self._fresh + fresh))
        self._fresh += fresh
        return np.concatenate(taken)

    def alloc_huge(self, wanted: int) -> Pfns:
        """Take at most `wanted` free aligned runs of HUGE_SIZE frames; return their first pfns. int64[n]."""
        start = -(-self._fresh // HUGE_SIZE)
        blocks = np.arange(start, max(start, min(start + wanted, self.count // HUGE_SIZE)))
        if len(blocks):
            self._recycle(np.arange(self._fresh, start * HUGE_SIZE))
            self._fresh = (int(blocks[-1]) + 1) * HUGE_SIZE
        if len(blocks) < wanted and self._recycled:
            blocks = np.concatenate([blocks, self._recycled_blocks(wanted - len(blocks))])
        return blocks * HUGE_SIZE

    def split_huge(self, first: Pfns) -> None:
        """Make single frames of these huge pages, given by their first pfns: here all frames are single."""

    def _recycled_blocks(self, wanted: int) -> Pfns:
        """Take at most `wanted` blocks all of whose frames have been freed."""
        free = np.concatenate([_unpacked(part) for part in self._recycled]).astype(np.int64)
        blocks = np.flatnonzero(np.bincount(free // HUGE_SIZE) == HUGE_SIZE)[:wanted]
        if len(blocks):
            left = free[~np.isin(free // HUGE_SIZE, blocks)]
            self._recycled, self._recycled_count = [], 0
            self._recycle(left)
        return blocks

    def _recycle(self, pfns: Pfns) -> None:
        if len(pfns):
            self._recycled.append(_packed(pfns))
            self._recycled_count += len(pfns)

    def map_anon(self, pfns: Pfns, mm: Array | int) -> None:
        """Map new frames for the first time, by the process `mm`."""
        self.mapping[pfns] = node_of_mm(np.asarray(mm)) << _FLAG_BITS | PAGE_MAPPING_ANON
        self.mapcount[pfns] = 1

    def write(self, pfns: Pfns, ids: U64, digests: Digests) -> None:
        """Write the contents with these ids and digests to private frames."""
        self.content[pfns] = digests
        if self.data is not None:
            self.data[pfns] = page_bytes(ids)

    def fill(self, pfns: Pfns, digests: Digests, pages: U8 | None) -> None:
        """Fill private frames with what `read` returned elsewhere."""
        self.content[pfns] = digests
        if self.data is not None and pages is not None:
            self.data[pfns] = pages

    def read(self, pfns: Pfns) -> tuple[Array, ...]:
        """Return digests and, with bytes, pages: the columns that `fill` takes."""
        if self.data is None:
            return (self.content[pfns],)
        return self.content[pfns], self.data[pfns]

    def get(self, pfns: Pfns, count: I64) -> None:
        """Add `count` mappings to each frame; frames may repeat."""
        self._make_room(pfns, count)
        # ufunc.at is quick only if both sides are of one type.
        np.add.at(self.mapcount, pfns, count.astype(self.mapcount.dtype))

    def _make_room(self, pfns: Pfns, count: Array) -> None:
        """Widen `mapcount` if it might not hold `count` more mappings of each frame."""
        most = np.iinfo(self.mapcount.dtype).max
        if len(pfns) == 0 or int(count.sum()) <= (left := most - int(self.mapcount[pfns].max())):
            return
        _, which = np.unique(pfns, return_inverse=True)
        if np.bincount(which, count).max() > left:
            self.mapcount = self.mapcount.astype(np.int32)

    def pin(self, pfns: Pfns) -> None:
        """Add a reference that is not a mapping to each frame; frames may repeat."""
        np.add.at(self.pins, pfns, np.uint16(1))

    def put(self, pfns: Pfns) -> Pfns:
        """Drop a mapping of each frame, and free frames that are not in use any more; frames may repeat.

        Return the pfns of the KSM frames among the freed ones; their content can still be read.
        """
        np.subtract.at(self.mapcount, pfns, self.mapcount.dtype.type(1))
        return self._free_unreferenced(pfns)

    def unpin(self, pfns: Pfns) -> Pfns:
        """Drop a pin of each frame; else as `put`."""
        np.subtract.at(self.pins, pfns, np.uint16(1))
        return self._free_unreferenced(pfns)

    def _free_unreferenced(self, pfns: Pfns) -> Pfns:
        freed: Pfns = pfns[rows_where(~self.referenced(pfns))]
        if len(freed) == 0:
            return freed
        freed = distinct_below(self.count, freed)
        stale: Pfns = freed[self.is_ksm(freed)]
        self._free(freed)
        return stale

    def retire(self, pfn: int) -> None:
        """Take a free frame out of use for good (page_handle_poison())."""
        parts = [_unpacked(part).astype(np.int64) for part in self._recycled]
        self._recycled = [_packed(left) for part in parts if len(left := part[part != pfn])]
        self._recycled_count -= 1
        self.pins[pfn] = 1

    def _free(self, pfns: Pfns) -> None:
        self.mapping[pfns] = 0
        self._ksm_frames = None
        self._recycle(pfns)

    def is_ksm(self, pfns: Pfns | slice) -> Bool:
        """Return which frames are KSM frames (PageKsm()). bool[n]."""
        ksm: Bool = (self.mapping[pfns] & np.uint16(PAGE_MAPPING_FLAGS)) == PAGE_MAPPING_KSM
        return ksm

    def owner_nodes(self, pfns: Pfns) -> I64:
        """Return the nodes of the processes that anonymous frames belong to. int64[n]."""
        return (self.mapping[pfns] >> np.uint16(_FLAG_BITS)).astype(np.int64)

    def move_in(
        self, pfns: Pfns, digests: Digests, mapping: U16, pins: Array, mapcount: Array, pages: U8 | None
    ) -> None:
        """Fill new frames with frames that have migrated here with all their references."""
        self.fill(pfns, digests, pages)
        self.mapping[pfns] = mapping
        self.pins[pfns] = pins
        self._make_room(pfns, mapcount)
        self.mapcount[pfns] = mapcount

    def move_out(self, pfns: Pfns) -> None:
        """Free frames that have migrated away with all their references."""
        self.pins[pfns] = 0
        self.mapcount[pfns] = 0
        self._free(pfns)

    def make_ksm(self, frames: FrameWords) -> None:
        """Make frames KSM frames (folio_set_stable_node())."""
        self.mapping[pfn_of(frames)] = PAGE_MAPPING_KSM
        self._ksm_frames = None


def _packed(pfns: Pfns) -> Array | Narrow:
    """Return pfns, one or more, in fewer bytes: where many ascend by little, in one or two each."""
    packed = narrowed(pfns, np.array([0, len(pfns)]))
    if isinstance(packed, Steps):
        packed.steps[packed.starts] = 0
        packed = packed._replace(steps=packed.steps.astype(np.min_scalar_type(packed.steps.max())))
    return packed


def _unpacked(packed: Array | Narrow) -> Array:
    """Return the pfns, as integers of any type."""
    return packed if isinstance(packed, np.ndarray) else widened([packed])
