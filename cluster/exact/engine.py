"""The exact machine: processes by name, system calls, sysfs, and views of the whole machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count

import numpy as np
from numpy.typing import NDArray

from cluster.exact.huge_paging import HugePaging
from cluster.exact.ksmd import ExactKsmd
from cluster.exact.memory_failure import MemoryFailure
from cluster.exact.objects import (
    FIRST_PAGE,
    REGION_PAGES,
    ExactMm,
    ExactRegion,
    Frame,
    HwPoisonPte,
    Pte,
    SwapEntry,
)
from cluster.exact.paging import is_lost
from cluster.exact.reason import Reason
from cluster.script.engine import (
    ANON,
    HUGE_PAGES,
    KSM,
    MAPPED_BY_PMD,
    MAPPED_BY_PTE,
    NO_FRAME,
    SMALL,
    SWAPPED,
    ZERO_PAGE,
    BadAddressError,
    MachineView,
    RegionView,
)
from cluster.script.sysfs import Sysfs
from cluster.spec.content import PAGE_SIZE, page_key
from cluster.spec.knobs import RMAP_ITEM_SIZE, Counters, KnobValues
from cluster.spec.profile import Profile

_NO_LIMIT = 10**8


class ExactEngine:
    """A machine of `nodes` NUMA nodes, with or without swap.

    Implements `cluster.script.engine.Engine`, where its methods are documented.
    """

    def __init__(self, profile: Profile, nodes: int = 1, *, swap: bool = False) -> None:
        self._profile = profile
        self._nodes = nodes
        self._counters = Counters()
        knobs = KnobValues()
        self._paging = HugePaging(profile, self._counters, swap=swap)
        self._memory_failure = MemoryFailure(profile, self._paging)
        self._ksmd = ExactKsmd(profile, knobs, self._counters, self._paging, nodes)
        self._sysfs = Sysfs(profile, knobs, self._ksmd.stable.remove_all)
        self._mms: dict[str, ExactMm] = {}
        self._numbers = count()

    @property
    def now_ms(self) -> int:
        """Return simulated time in ms.

        Only the setter changes it. If it is never set, chains are pruned at every search (interval 0) or
        never.
        """
        return self._ksmd.stable.now_ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self._ksmd.stable.now_ms = now_ms

    # sysfs

    def set_knob(self, knob: str, value: str) -> str:
        return self._sysfs.write(knob, value, self._counters)

    def knobs(self) -> dict[str, int | str]:
        return self._sysfs.knobs()

    # Processes

    def proc(self, p: str) -> None:
        self._mms[p] = ExactMm(p, next(self._numbers))

    def fork(self, p: str, q: str) -> None:
        parent, child = self._mms[p], ExactMm(q, next(self._numbers))
        self._mms[q] = child
        child.merge_any = parent.merge_any
        if self._profile.fork_copies_counts:
            child.merging_pages, child.rmap_items = parent.merging_pages, parent.rmap_items
        child.anon_vmas = parent.anon_vmas.fork(parent.number)
        if parent.slot is not None:
            self._ksmd.enter(child)
        for region in parent.regions:
            copy = ExactRegion(child, region.name, region.start, len(region), region.node)
            copy.mapped[:] = region.mapped
            copy.mergeable[:] = region.mergeable
            child.regions.append(copy)
            self._paging.share(region, copy)

    def exit(self, p: str) -> None:
        self._end(self._mms.pop(p))

    def _end(self, mm: ExactMm) -> None:
        mm.alive = False
        if mm.slot is not None:
            self._ksmd.exit(mm)
        for region in mm.regions:
            self._unmap(region, 0, len(region))

    def exec(self, p: str) -> None:
        old, new = self._mms[p], ExactMm(p, next(self._numbers))
        self._mms[p] = new
        new.merge_any = old.merge_any
        if new.merge_any:
            self._register(new)
        self._end(old)

    def merge_any(self, p: str, *, on: bool) -> str:
        if not self._profile.merge_any:
            return "EINVAL"
        mm = self._mms[p]
        if on and not mm.merge_any:
            self._register(mm)
            mm.anon_vmas.merge_any(on=True)
            for region in mm.regions:
                region.mergeable[:] = region.mapped
        elif mm.merge_any and not on:
            self._ksmd.unmerge(mm)
            mm.anon_vmas.merge_any(on=False)
            for region in mm.regions:
                region.mergeable[:] = bytes(len(region))
        mm.merge_any = on
        return ""

    # Memory

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        mm = self._mms[p]
        bad_node = node is not None and not 0 <= node < self._nodes
        start = FIRST_PAGE + len(mm.regions) * REGION_PAGES
        region = ExactRegion(mm, r, start, pages, None if bad_node else node)
        mm.regions.append(region)
        mm.anon_vmas.mmap(start, start + pages, mergeable=mm.merge_any)
        if mm.merge_any:
            self._register(mm)
            region.mergeable[:] = region.mapped
        return "EINVAL" if bad_node else ""

    def fill(self, p: str, r: str, pages: NDArray[np.int64], contents: NDArray[np.uint64]) -> str:
        region = self._region(p, r)
        keys = page_key(contents)
        for index, content, key in zip(pages.tolist(), contents.tolist(), keys, strict=True):
            if _is_lost(region, index):
                return "EFAULT"
            self._paging.write(region, index, content, key)
        return ""

    def read(self, p: str, r: str, start: int, count: int) -> str:
        return self._touch(p, r, start, count, self._paging.read)

    def pin(self, p: str, r: str, start: int, count: int) -> str:
        return self._touch(p, r, start, count, self._paging.pin)

    def _touch(
        self, p: str, r: str, start: int, count: int, touch: Callable[[ExactRegion, int], None]
    ) -> str:
        region = self._region(p, r)
        for index in range(start, start + count):
            if _is_lost(region, index):
                return "EFAULT"
            touch(region, index)
        return ""

    def mergeable(self, p: str, r: str, start: int, count: int) -> str:
        def advise(region: ExactRegion, index: int) -> None:
            if not region.mergeable[index]:
                self._register(region.mm)
                region.mergeable[index] = 1

        self._change_vmas(p, r, start, count, mergeable=True)
        return self._advise(p, r, start, count, advise)

    def unmergeable(self, p: str, r: str, start: int, count: int) -> str:
        def advise(region: ExactRegion, index: int) -> None:
            if region.mergeable[index]:
                self._paging.break_ksm(region, index)
                region.mergeable[index] = 0

        self._change_vmas(p, r, start, count, mergeable=False)
        return self._advise(p, r, start, count, advise)

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        region = self._region(p, r)
        self._unmap(region, start, count)
        return _error_of_holes(region, start, count)

    def pageout(self, p: str, r: str, start: int, count: int) -> str:
        region = self._region(p, r)
        for first, pages in _parts(region, start, count):
            self._paging.page_out_range(region, first, pages)
        return _error_of_holes(region, start, count)

    def unmap(self, p: str, r: str, start: int, count: int) -> str:
        if count == 0:
            return "EINVAL"
        region = self._region(p, r)
        self._unmap(region, start, count)
        first = region.start + start
        region.mm.anon_vmas.munmap(first, first + count)
        region.mapped[start : start + count] = region.mergeable[start : start + count] = bytes(count)
        return ""

    def huge(self, p: str, r: str, start: int, count: int) -> str:
        region = self._region(p, r)
        region.thp = True
        self._change_vmas(p, r, start, count, mergeable=None)
        return _error_of_holes(region, start, count)

    def collapse(self, p: str, r: str, start: int, count: int) -> str:
        region = self._region(p, r)
        for first, pages in _parts(region, start, count):
            if not _may_collapse(region, first):
                return "EINVAL"
            if error := self._paging.collapse(region, first, pages):
                return error
        return _error_of_holes(region, start, count)

    def poison(self, p: str, r: str, start: int, count: int) -> str:
        return self._fail(p, r, start, count, self._memory_failure.poison)

    def soft_offline(self, p: str, r: str, start: int, count: int) -> str:
        return self._fail(p, r, start, count, self._memory_failure.soft_offline)

    def _fail(
        self, p: str, r: str, start: int, count: int, fail: Callable[[ExactRegion, int, int], str]
    ) -> str:
        return fail(self._region(p, r), start, count) if self._profile.memory_failure else "EINVAL"

    def move(self, p: str, r: str, start: int, count: int, node: int) -> int:
        if not 0 <= node < self._nodes:
            return 0
        region = self._region(p, r)
        frames = (region.pte[index] for index in range(start, start + count))
        return sum(self._move_frame(frame, node) for frame in frames)

    def _move_frame(self, pte: Pte, node: int) -> bool:
        return isinstance(pte, Frame) and (pte.node == node or self._paging.migrate(pte, node))

    # ksmd

    def unmerge_all(self) -> None:
        self._ksmd.unmerge_all()

    def scan(self) -> bool:
        before = self._ksmd.full_scans
        self._ksmd.scan(_NO_LIMIT)
        return self._ksmd.full_scans > before

    def batch(self, pages: int) -> None:
        self._ksmd.scan(pages)

    # Views from outside

    def take_reasons(self) -> set[Reason]:
        """Return why the result depends on the shapes of trees, for ksmd's work since the last call.

        Before the first reason, a machine without tree shapes (`MachineSpec.tree_shape`) has the same result.
        """
        return self._ksmd.take_reasons()

    def view(self) -> MachineView:
        profile = self._profile
        vmstat = {"cow_ksm": self._counters.cow_ksm, "ksm_swpin_copy": self._counters.ksm_swpin_copy}
        return MachineView(
            sysfs=self._sysfs.counters(self._counters, self._ksmd.full_scans),
            vmstat={name: vmstat[name] for name in profile.vmstat},
            procs={name: self._process_stats(mm) for name, mm in self._mms.items()},
            regions=[_view(region) for region in self._regions()],
            thp_vmstat=asdict(self._paging.thp),
        )

    def _process_stats(self, mm: ExactMm) -> dict[str, int | str]:
        merged = mm.merging_pages + mm.zero_pages
        stats: dict[str, int | str] = {
            "ksm_merging_pages": mm.merging_pages,
            "ksm_rmap_items": mm.rmap_items,
            "ksm_zero_pages": mm.zero_pages,
            "ksm_process_profit": merged * PAGE_SIZE - mm.rmap_items * RMAP_ITEM_SIZE,
            "ksm_merge_any": _yes(mm.merge_any),
            "ksm_mergeable": _yes(mm.mergeable()),
        }
        return {name: stats[name] for name in self._profile.process_stats}

    def _regions(self) -> Iterator[ExactRegion]:
        for mm in self._mms.values():
            yield from mm.regions

    def _region(self, p: str, r: str) -> ExactRegion:
        return next(region for region in self._mms[p].regions if region.name == r)

    def _register(self, mm: ExactMm) -> None:
        if mm.slot is None:
            self._ksmd.enter(mm)

    def _unmap(self, region: ExactRegion, start: int, count: int) -> None:
        """Clear page table entries, VMA by VMA."""
        for first, pages in _parts(region, start, count):
            self._paging.unmap_range(region, first, pages)

    def _change_vmas(self, p: str, r: str, start: int, count: int, *, mergeable: bool | None) -> None:
        """Split and join VMAs so that the range is `mergeable` or not; if None, it may have huge pages.

        A new boundary between VMAs splits the PMD that maps both sides.
        """
        region = self._region(p, r)
        anon_vmas, into_bare = region.mm.anon_vmas, self._profile.into_bare
        first = region.start + start
        before = {at for at, _ in _parts(region, 0, len(region))} if region.thp else set()
        if mergeable is None:
            anon_vmas.madvise_huge(first, first + count, into_bare=into_bare)
        else:
            anon_vmas.madvise(first, first + count, mergeable=mergeable, into_bare=into_bare)
        if region.thp:
            for at, _ in _parts(region, 0, len(region)):
                if at not in before:
                    self._paging.split_at(region, at)

    def _advise(
        self, p: str, r: str, start: int, count: int, advise: Callable[[ExactRegion, int], None]
    ) -> str:
        """Apply `advise` to each mapped page; return ENOMEM if the range has holes, as madvise does."""
        region = self._region(p, r)
        for index in range(start, start + count):
            if region.mapped[index]:
                advise(region, index)
        return _error_of_holes(region, start, count)


def _is_lost(region: ExactRegion, index: int) -> bool:
    """Return whether the memory of a page has failed. Raises BadAddressError if it is not mapped."""
    if not region.mapped[index]:
        raise BadAddressError(f"page {index} of {region.mm.name} {region.name} is not mapped any more")
    return is_lost(region.pte[index])


def _error_of_holes(region: ExactRegion, start: int, count: int) -> str:
    """Return the error of madvise, which skips pages that are not mapped."""
    return "ENOMEM" if 0 in region.mapped[start : start + count] else ""


def _parts(region: ExactRegion, start: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the first page and the number of pages that each VMA has of a range."""
    first = region.start + start
    for low, high in region.mm.anon_vmas.parts(first, first + count):
        yield low - region.start, high - low


def _may_collapse(region: ExactRegion, index: int) -> bool:
    """Return whether the VMA of a page may have huge pages, has room for one, and was written."""
    anon_vmas = region.mm.anon_vmas
    page = region.start + index
    start, end = anon_vmas.vma_of(page)
    last = (end - HUGE_PAGES) // HUGE_PAGES * HUGE_PAGES
    return anon_vmas.may_be_huge(page, page) and last >= start and anon_vmas.needs_copy(page)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _view(region: ExactRegion) -> RegionView:
    seen = np.array([_look(pte) for pte in region.pte], dtype=np.int64).reshape(-1, 3)
    thp = None
    if region.thp:
        thp = np.array([_how_mapped(region, index) for index in range(len(region))], dtype=np.int64)
        for block in region.huge_zero:
            # each of its pages is another frame
            seen[block * HUGE_PAGES : (block + 1) * HUGE_PAGES, 0] = np.arange(HUGE_PAGES) + 1
    return RegionView(region.mm.name, region.name, seen[:, 0], seen[:, 1], seen[:, 2], thp)


def _how_mapped(region: ExactRegion, index: int) -> int:
    if region.mapped_by_pmd(index):
        return MAPPED_BY_PMD
    pte = region.pte[index]
    return MAPPED_BY_PTE if isinstance(pte, Frame) and pte.huge is not None else SMALL


def _look(pte: Pte) -> tuple[int, int, int]:
    """Return frame number, kind and node of a page table entry."""
    if isinstance(pte, Frame):
        return pte.pfn, KSM if pte.ksm else ANON, pte.node
    if pte is None:
        return NO_FRAME, NO_FRAME, -1
    if isinstance(pte, SwapEntry | HwPoisonPte):
        return SWAPPED, SWAPPED, -1
    return 0, ZERO_PAGE, -1
