"""Which memory of a process has an anon_vma: fork copies page tables of such memory only.

A VMA gets its anon_vma at its first write fault, for all of its pages. VMAs here are the kernel's, which
madvise() splits and joins. Sources: `mm/vma.c` (vma_merge_existing_range(),
is_mergeable_anon_vma(), find_mergeable_anon_vma()), `mm/rmap.c` (anon_vma_fork()), `kernel/fork.c`
(dup_mmap()), `mm/memory.c` (vma_needs_copy()). Pages are numbered by address.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(slots=True)
class _KernelVma:
    """A VMA of the pages [start, end)."""

    start: int
    end: int
    mergeable: bool
    #: VM_HUGEPAGE: it may have huge pages.
    huge: bool = False
    #: Number of its anon_vma, 0 for none.
    anon_vma: int = 0
    #: The ancestors that it was inherited from with an anon_vma, the nearest first.
    lineage: tuple[int, ...] = ()

    @property
    def lends(self) -> bool:
        """Return whether other VMAs may share its anon_vma: not if fork copied it (vma_is_fork_child())."""
        return self.anon_vma != 0 and not self.lineage


class AnonVmas:
    """The VMAs of one process by ascending address, and the anon_vma of each. System calls change it."""

    __slots__ = ("_last", "_vmas")

    def __init__(self) -> None:
        self._vmas: list[_KernelVma] = []
        #: The anon_vma number that was given out last.
        self._last = 0

    def mmap(self, start: int, end: int, *, mergeable: bool) -> None:
        insort(self._vmas, _KernelVma(start, end, mergeable), key=_start)

    def munmap(self, start: int, end: int) -> None:
        first, last = self._split(start), self._split(end)
        del self._vmas[first:last]

    def madvise(self, start: int, end: int, *, mergeable: bool, into_bare: bool) -> None:
        """Carry out MADV_MERGEABLE or MADV_UNMERGEABLE; `into_bare` as in `cluster.spec.profile.Profile`."""
        at = bisect_right(self._vmas, start, key=_end)
        while start < end and at < len(self._vmas) and self._vmas[at].start < end:
            if self._vmas[at].mergeable != mergeable:
                at = self._cut_out(at, start, end)
                self._vmas[at].mergeable = mergeable
                at = self._merge(at, into_bare=into_bare)
            at += 1

    def madvise_huge(self, start: int, end: int, *, into_bare: bool) -> None:
        """Carry out MADV_HUGEPAGE, as `madvise`."""
        at = bisect_right(self._vmas, start, key=_end)
        while start < end and at < len(self._vmas) and self._vmas[at].start < end:
            if not self._vmas[at].huge:
                at = self._cut_out(at, start, end)
                self._vmas[at].huge = True
                at = self._merge(at, into_bare=into_bare)
            at += 1

    def merge_any(self, *, on: bool) -> None:
        """Make every VMA mergeable or not, without joining any (prctl(PR_SET_MEMORY_MERGE))."""
        for vma in self._vmas:
            vma.mergeable = on

    def prepare(self, page: int) -> None:
        """Give a VMA an anon_vma at a write fault, or a neighbour's (anon_vma_prepare())."""
        at = self._at(page)
        vma = self._vmas[at]
        if vma.anon_vma:
            return
        for near in (*self._vmas[at + 1 : at + 2], *self._vmas[max(at - 1, 0) : at]):
            if near.lends and _alike(near, vma):
                vma.anon_vma = near.anon_vma
                return
        vma.anon_vma = self._number()

    def fork(self, parent: int) -> AnonVmas:
        """Return the VMAs of a child; `parent` is the number of the process that forks."""
        child = AnonVmas()
        for vma in self._vmas:
            copy = replace(vma)
            if vma.anon_vma:
                copy.anon_vma, copy.lineage = child._number(), (parent, *vma.lineage)
            child._vmas.append(copy)
        return child

    def needs_copy(self, page: int) -> bool:
        """Return whether fork copies the page table entry of a mapped page (vma_needs_copy())."""
        return self._vmas[self._at(page)].anon_vma != 0

    def parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the part of each VMA that lies within the pages [start, end)."""
        at = bisect_right(self._vmas, start, key=_end)
        while at < len(self._vmas) and self._vmas[at].start < end:
            yield max(start, self._vmas[at].start), min(end, self._vmas[at].end)
            at += 1

    def vma_of(self, page: int) -> tuple[int, int]:
        """Return the first page of the VMA of a mapped page, and the first one behind it."""
        vma = self._vmas[self._at(page)]
        return vma.start, vma.end

    def may_be_huge(self, start: int, end: int) -> bool:
        """Return whether one VMA with VM_HUGEPAGE has all of the pages, the first of which is mapped."""
        vma = self._vmas[self._at(start)]
        return vma.huge and vma.start <= start and end <= vma.end

    def lineage(self, page: int) -> tuple[int, ...]:
        """Return the ancestors from which reverse mapping reaches a mapped page, the nearest first."""
        return self._vmas[self._at(page)].lineage

    def _at(self, page: int) -> int:
        """Return the index of the VMA of a mapped page."""
        return bisect_right(self._vmas, page, key=_start) - 1

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _split(self, page: int) -> int:
        """Split the VMA of `page` there, and return the index of the first VMA from there on."""
        at = bisect_left(self._vmas, page, key=_start)
        if at and self._vmas[at - 1].end > page:
            self._vmas.insert(at, replace(self._vmas[at - 1], start=page))
            self._vmas[at - 1].end = page
        return at

    def _cut_out(self, at: int, start: int, end: int) -> int:
        """Split a VMA so that its pages within [start, end) are a VMA of their own; return its index."""
        vma = self._vmas[at]
        self._split(min(end, vma.end))
        return self._split(max(start, vma.start))

    def _merge(self, at: int, *, into_bare: bool) -> int:
        """Merge a VMA with new flags with its neighbours if possible, and return its index.

        A VMA without an anon_vma between two that have different ones joins the left one.
        """
        vma = self._vmas[at]
        before, behind = self._vmas[max(at - 1, 0) : at], self._vmas[at + 1 : at + 2]
        left = any(_joins(vma, near, into_bare=into_bare) for near in before)
        right = any(_joins(vma, near, into_bare=into_bare) for near in behind)
        if left and right:
            anon_vmas = {before[0].anon_vma, behind[0].anon_vma} - {0}
            right = len(anon_vmas) < 2
        if right:
            self._absorb(at)
        if left:
            self._absorb(at - 1)
        return at - left

    def _absorb(self, at: int) -> None:
        """Merge a VMA with the next one."""
        vma, gone = self._vmas[at], self._vmas.pop(at + 1)
        vma.end = gone.end
        vma.anon_vma, vma.lineage = (
            (vma.anon_vma, vma.lineage) if vma.anon_vma else (gone.anon_vma, gone.lineage)
        )


def _start(vma: _KernelVma) -> int:
    return vma.start


def _end(vma: _KernelVma) -> int:
    return vma.end


def _alike(one: _KernelVma, other: _KernelVma) -> bool:
    """Return whether two VMAs touch, and have the same flags."""
    same = one.mergeable == other.mergeable and one.huge == other.huge
    return same and (one.end == other.start or other.end == one.start)


def _joins(vma: _KernelVma, near: _KernelVma, *, into_bare: bool) -> bool:
    """Return whether a VMA may merge with a neighbour (is_mergeable_anon_vma())."""
    if not _alike(vma, near):
        return False
    if vma.anon_vma == near.anon_vma:
        return True
    if near.anon_vma == 0:
        return into_bare and vma.lends
    return vma.anon_vma == 0 and near.lends
