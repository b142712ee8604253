"""Physical frames of one NUMA node (struct page, mm/page_alloc.c).

The `mapping` word says in its two low bits what a frame is, as in the kernel (include/linux/page-flags.h);
the other bits identify the owner: the mm for an anonymous frame, the stable node's digest for a KSM frame.
"""

from __future__ import annotations

import numpy as np

from cluster.columns import distinct, rows_where
from cluster.content import page_bytes
from cluster.spec import PAGE_SIZE
from cluster.words import I64, U8, U64, Array, Bool, pfn_of

PAGE_MAPPING_ANON = 0x1
PAGE_MAPPING_MOVABLE = 0x2
PAGE_MAPPING_KSM = PAGE_MAPPING_ANON | PAGE_MAPPING_MOVABLE
PAGE_MAPPING_FLAGS = 0x3

_MAPPING_OWNER = np.uint64(0xFFFFFFFFFFFFFFFC)


class Frames:
    """Structure of arrays, one element a frame; arrays are touched only as far as frames were used.

    mapping uint64, refcount and mapcount int32, content uint64 (digest), data uint8[n, 4096] or None.
    """

    def __init__(self, count: int, *, with_bytes: bool) -> None:
        self.count = count
        self.mapping = np.zeros(count, np.uint64)
        self.refcount = np.zeros(count, np.int32)
        self.mapcount = np.zeros(count, np.int32)
        self.content = np.zeros(count, np.uint64)
        self.data: U8 | None = np.zeros((count, PAGE_SIZE), np.uint8) if with_bytes else None
        self._fresh = 0
        self._recycled: list[I64] = []
        self._recycled_count = 0

    @property
    def free_count(self) -> int:
        return self.count - self._fresh + self._recycled_count

    @property
    def used(self) -> int:
        return self.count - self.free_count

    def in_use(self) -> I64:
        """The pfns of frames that somebody refers to."""
        return np.flatnonzero(self.refcount[: self._fresh])

    def alloc(self, wanted: int) -> I64:
        """At most `wanted` free frames: recently freed ones first, then ascending pfns. int64[n]."""
        taken = []
        while wanted and self._recycled:
            last = self._recycled.pop()
            if len(last) > wanted:
                self._recycled.append(last[:-wanted])
                last = last[-wanted:]
            taken.append(last)
            wanted -= len(last)
            self._recycled_count -= len(last)
        fresh = min(wanted, self.count - self._fresh)
        taken.append(np.arange(self._fresh, self._fresh + fresh))
        self._fresh += fresh
        return np.concatenate(taken)

    def map_anon(self, pfns: I64, mm: Array | int) -> None:
        """Fresh frames get their first mapping, by the process `mm`."""
        owner = np.asarray(mm).astype(np.uint64) << np.uint64(2)
        self.mapping[pfns] = owner | np.uint64(PAGE_MAPPING_ANON)
        self.refcount[pfns] = 1
        self.mapcount[pfns] = 1

    def write(self, pfns: I64, ids: U64, digests: U64) -> None:
        """Puts the contents with these ids, whose digests are known, into private frames."""
        self.content[pfns] = digests
        if self.data is not None:
            self.data[pfns] = page_bytes(ids)

    def fill(self, pfns: I64, digests: U64, pages: U8 | None) -> None:
        """Puts what was read elsewhere into private frames."""
        self.content[pfns] = digests
        if self.data is not None and pages is not None:
            self.data[pfns] = pages

    def read(self, pfns: I64) -> tuple[Array, ...]:
        """Digests and, with bytes, the pages: the columns that `fill` takes."""
        if self.data is None:
            return (self.content[pfns],)
        return self.content[pfns], self.data[pfns]

    def get(self, pfns: I64, count: I64) -> None:
        """So many mappings more for each entry (entries may repeat)."""
        # ufunc.at is quick only if both sides are of one type.
        count32 = count.astype(np.int32)
        np.add.at(self.mapcount, pfns, count32)
        np.add.at(self.refcount, pfns, count32)

    def pin(self, pfns: I64) -> None:
        """A reference that is no mapping, for each entry (entries may repeat)."""
        np.add.at(self.refcount, pfns, np.int32(1))

    def put(self, pfns: I64) -> I64:
        """One mapping less for each entry (entries may repeat); frees frames without any.

        Returns the pfns of the KSM frames among the freed ones; their content can still be read.
        """
        np.subtract.at(self.mapcount, pfns, np.int32(1))
        return self.unpin(pfns)

    def unpin(self, pfns: I64) -> I64:
        """One reference less for each entry; else as `put`."""
        np.subtract.at(self.refcount, pfns, np.int32(1))
        freed: I64 = pfns[rows_where(self.refcount[pfns] == 0)]
        if len(freed) == 0:
            return freed
        freed = distinct(freed)
        stale: I64 = freed[self.is_ksm(freed)]
        self._free(freed)
        return stale

    def _free(self, pfns: I64) -> None:
        self.mapping[pfns] = 0
        self._recycled.append(pfns)
        self._recycled_count += len(pfns)

    def is_ksm(self, pfns: I64) -> Bool:
        """PageKsm()."""
        ksm: Bool = (self.mapping[pfns] & np.uint64(PAGE_MAPPING_FLAGS)) == PAGE_MAPPING_KSM
        return ksm

    def move_out(self, pfns: I64) -> None:
        """These frames have been migrated away with all their references."""
        self.refcount[pfns] = 0
        self.mapcount[pfns] = 0
        self._free(pfns)

    def make_ksm(self, frames: I64, digests: U64) -> None:
        """set_page_stable_node(): the mapping words of the frames with these names now name stable nodes."""
        self.mapping[pfn_of(frames)] = (digests & _MAPPING_OWNER) | np.uint64(PAGE_MAPPING_KSM)
