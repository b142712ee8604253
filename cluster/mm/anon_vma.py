"""Which memory of a process has an anon_vma: fork copies the page tables of no other.

A VMA gets its anon_vma at its first write fault, and for all of its pages. What counts is the VMA as the
kernel has it, which advice splits and joins. Sources: `mm/vma.c` (vma_merge_existing_range(),
is_mergeable_anon_vma(), find_mergeable_anon_vma()), `mm/rmap.c` (anon_vma_fork()), `kernel/fork.c`
(dup_mmap()), `mm/memory.c` (vma_needs_copy()). Pages are numbered by address.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, replace


@dataclass(slots=True)
class _Vma:
    """Pages `start` to `end`, the latter not included."""

    start: int
    end: int
    mergeable: bool
    #: Number of its anon_vma, 0 for none.
    anon_vma: int = 0
    #: The processes that it was inherited from with an anon_vma, the nearest first.
    lineage: tuple[int, ...] = ()

    @property
    def lends(self) -> bool:
        """Whether others may share its anon_vma; never one inherited from a parent (vma_is_fork_child())."""
        return self.anon_vma != 0 and not self.lineage


class AnonVmas:
    """The VMAs of one process by ascending address, and the anon_vma of each."""

    __slots__ = ("_last", "_vmas")

    def __init__(self) -> None:
        self._vmas: list[_Vma] = []
        #: The number that was given out last.
        self._last = 0

    def mmap(self, start: int, end: int, *, mergeable: bool) -> None:
        insort(self._vmas, _Vma(start, end, mergeable), key=_start)

    def munmap(self, start: int, end: int) -> None:
        first, last = self._split(start), self._split(end)
        del self._vmas[first:last]

    def madvise(self, start: int, end: int, *, mergeable: bool, into_bare: bool) -> None:
        """MADV_MERGEABLE or MADV_UNMERGEABLE; `into_bare` as in `cluster.spec.profile.Profile`."""
        at = bisect_right(self._vmas, start, key=_end)
        while start < end and at < len(self._vmas) and self._vmas[at].start < end:
            vma = self._vmas[at]
            if vma.mergeable != mergeable:
                self._split(min(end, vma.end))
                at = self._split(max(start, vma.start))
                self._vmas[at].mergeable = mergeable
                at = self._merge(at, into_bare=into_bare)
            at += 1

    def merge_any(self) -> None:
        """prctl(PR_SET_MEMORY_MERGE): every VMA becomes mergeable, none joins another."""
        for vma in self._vmas:
            vma.mergeable = True

    def prepare(self, page: int) -> None:
        """anon_vma_prepare(): a write fault in a VMA without anon_vma; its neighbours' will do."""
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
        """The child's; `parent` is the number of the process that forks."""
        child = AnonVmas()
        for vma in self._vmas:
            copy = replace(vma)
            if vma.anon_vma:
                copy.anon_vma, copy.lineage = child._number(), (parent, *vma.lineage)
            child._vmas.append(copy)
        return child

    def needs_copy(self, page: int) -> bool:
        """vma_needs_copy(): whether fork copies the page table entry of a mapped page."""
        return self._vmas[self._at(page)].anon_vma != 0

    def lineage(self, page: int) -> tuple[int, ...]:
        """The processes from which reverse mapping comes to a mapped page of this one, the nearest first."""
        return self._vmas[self._at(page)].lineage

    def _at(self, page: int) -> int:
        """The index of the VMA that a mapped page is in."""
        return bisect_right(self._vmas, page, key=_start) - 1

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _split(self, page: int) -> int:
        """Makes `page` an edge of whatever VMA it is in; the index of the first VMA from there on."""
        at = bisect_left(self._vmas, page, key=_start)
        if at and self._vmas[at - 1].end > page:
            self._vmas.insert(at, replace(self._vmas[at - 1], start=page))
            self._vmas[at - 1].end = page
        return at

    def _merge(self, at: int, *, into_bare: bool) -> int:
        """A VMA with new flags joins its neighbours, if they let it; where it is then.

        One without an anon_vma may stand between two that have different ones: it joins the left one.
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
        """A VMA takes in the next one."""
        vma, gone = self._vmas[at], self._vmas.pop(at + 1)
        vma.end = gone.end
        vma.anon_vma, vma.lineage = (
            (vma.anon_vma, vma.lineage) if vma.anon_vma else (gone.anon_vma, gone.lineage)
        )


def _start(vma: _Vma) -> int:
    return vma.start


def _end(vma: _Vma) -> int:
    return vma.end


def _alike(one: _Vma, other: _Vma) -> bool:
    """Whether they touch, and have the same flags."""
    return one.mergeable == other.mergeable and (one.end == other.start or other.end == one.start)


def _joins(vma: _Vma, near: _Vma, *, into_bare: bool) -> bool:
    """Whether a VMA may be joined with a neighbour (is_mergeable_anon_vma())."""
    if not _alike(vma, near):
        return False
    if vma.anon_vma == near.anon_vma:
        return True
    if near.anon_vma == 0:
        return into_bare and vma.lends
    return vma.anon_vma == 0 and near.lends
