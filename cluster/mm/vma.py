"""Address spaces: mm_struct and its VMAs, and the translation between virtual pages and slots."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from cluster.arrays.words import I64, VPN_BITS, VPN_MASK, Bool, ItemKeys, Slots, mm_of_key
from cluster.mm.anon_vma import AnonVmas
from cluster.mm.page_table import PageTable
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import PolicySpec

#: With fewer values, a search for each takes no longer than a check whether they ascend.
_MANY = 1 << 12


@dataclass(slots=True)
class Vma:
    """A run of virtual pages with one placement policy; slot0 is the slot of its first page.

    It is one of the kernel's VMAs, or a part of one. `Mm.anon_vmas` has the kernel's VMAs.
    """

    mm: int
    start: int
    pages: int
    slot0: int
    mergeable: bool
    policy: PolicySpec
    name: str = ""
    #: munmap() or exit() has removed it; the slots stay until ksmd has freed their items.
    unmapped: bool = False
    #: MADV_HUGEPAGE.
    huge: bool = False

    @property
    def end(self) -> int:
        return self.start + self.pages


@dataclass(slots=True)
class Mm:
    """A process: its VMAs by ascending address."""

    id: int
    vmas: list[Vma] = field(default_factory=list)
    anon_vmas: AnonVmas = field(default_factory=AnonVmas)
    #: New mappings are mergeable from the start (prctl PR_SET_MEMORY_MERGE).
    merge_any: bool = False
    #: exit() was called; the rest is freed after ksmd's next visit.
    exited: bool = False
    #: ksm_merging_pages and ksm_rmap_items at its start; not 0 where fork copies them.
    inherited: tuple[int, int] = (0, 0)

    @property
    def mergeable(self) -> bool:
        return not self.exited and any(v.mergeable for v in self.vmas)


class AddressSpaces:
    """All processes of one node, with vectorised look-ups over their VMAs.

    `mms` changes by `add` and `remove` alone. System calls and the workload change VMAs by the methods here,
    or call `changed` after the change.
    """

    def __init__(self, table: PageTable) -> None:
        self.mms: dict[int, Mm] = {}
        self._table = table
        self._index: VmaIndex | None = None

    def changed(self) -> None:
        """Forget the index; call it after any change to VMAs."""
        self._index = None

    def add(self, mm: Mm) -> None:
        """Add a process."""
        self.mms[mm.id] = mm
        self.changed()

    def remove(self, mm: Mm) -> None:
        """Remove a process."""
        del self.mms[mm.id]
        self.changed()

    @property
    def index(self) -> VmaIndex:
        if self._index is None:
            self._index = VmaIndex([v for mm in self.mms.values() for v in mm.vmas])
        return self._index

    def mmap(
        self, mm: Mm, start: int, pages: int, policy: PolicySpec, *, mergeable: bool, name: str = ""
    ) -> Vma:
        """Return a new VMA without any page (mmap()).

        Raises SimulationError if the range is taken.
        """
        vma = self.map(mm, start, pages, policy, mergeable=mergeable, name=name)
        mm.anon_vmas.mmap(start, start + pages, mergeable=mergeable)
        return vma

    def map(
        self, mm: Mm, start: int, pages: int, policy: PolicySpec, *, mergeable: bool, name: str = ""
    ) -> Vma:
        """Return slots for a range of pages of which `Mm.anon_vmas` knows the VMA.

        Raises SimulationError if the range is taken.
        """
        at = bisect_right(mm.vmas, start, key=_start)
        if any(v.start < start + pages and start < v.end for v in mm.vmas[max(at - 1, 0) : at + 1]):
            raise SimulationError(f"pages {start:#x}..{start + pages:#x} overlap an existing mapping")
        vma = Vma(mm.id, start, pages, self._table.allocate(pages), mergeable, policy, name)
        mm.vmas.insert(at, vma)
        self.changed()
        return vma

    def copy(self, parent: Mm, child: Mm) -> None:
        """Give a child the VMAs of its parent, without pages; those with adjacent slots get adjacent ones."""
        vmas = [vma for vma in parent.vmas if not vma.unmapped]
        starts = [i for i, vma in enumerate(vmas) if i == 0 or not _adjacent(vmas[i - 1], vma)]
        for low, high in pairwise([*starts, len(vmas)]):
            slot0 = self._table.allocate(sum(vma.pages for vma in vmas[low:high]))
            moved = slot0 - vmas[low].slot0
            child.vmas += [replace(vma, mm=child.id, slot0=vma.slot0 + moved) for vma in vmas[low:high]]
        self.changed()

    def split(self, mm: Mm, start: int, end: int) -> list[Vma]:
        """Return the mapped VMAs in virtual pages [start, end), after splitting VMAs at its ends."""
        for edge in (start, end):
            for vma in mm.vmas:
                if vma.start < edge < vma.end:
                    left = edge - vma.start
                    rest = replace(vma, start=edge, pages=vma.pages - left, slot0=vma.slot0 + left)
                    mm.vmas.append(rest)
                    vma.pages = left
                    mm.vmas.sort(key=lambda v: v.start)
                    self.changed()
                    break
        return [v for v in mm.vmas if start <= v.start and v.end <= end and not v.unmapped]

    def slots(self, mm: Mm, vpns: I64) -> Slots:
        """Return the slots of virtual pages of one process; -1 where nothing is mapped."""
        return self.index.slots((mm.id << VPN_BITS) | vpns)

    def validate(self) -> None:
        """Raise AssertionError if VMAs share slots, or the index is not up to date."""
        vmas = sorted((v for mm in self.mms.values() for v in mm.vmas), key=lambda v: v.slot0)
        ends = [v.slot0 + v.pages for v in vmas]
        assert all(end <= v.slot0 for end, v in zip(ends, vmas[1:], strict=False)), "VMAs share slots"
        assert not ends or ends[-1] <= self._table.size, "a VMA has slots that are not allocated"
        if self._index is not None:
            index = self._index
            assert [index.vmas[i] for i in index.by_slot] == vmas, "the index has other VMAs"
            assert index.mergeable.tolist() == [v.mergeable for v in vmas], "VMAs changed without `changed`"


class VmaIndex:
    """VMAs as sorted arrays, by slot and by item key."""

    def __init__(self, vmas: list[Vma]) -> None:
        self.vmas = vmas
        slot0 = np.array([v.slot0 for v in vmas], np.int64)
        key0 = np.array([(v.mm << VPN_BITS) | v.start for v in vmas], np.int64)
        pages = np.array([v.pages for v in vmas], np.int64)
        self.by_slot = by_slot = np.argsort(slot0, kind="stable")
        self.slot0 = slot0[by_slot]
        self._key_less_slot = (key0 - slot0)[by_slot]
        #: By rank of the slot: the process, the virtual pages [start, end), and whether the VMA is mergeable.
        self.mm = mm_of_key(key0)[by_slot]
        self.start = (key0 & VPN_MASK)[by_slot]
        self.end = self.start + pages[by_slot]
        self.mergeable: Bool = np.array([v.mergeable for v in vmas], np.bool_)[by_slot]
        #: Whether any VMA may get huge pages.
        self.any_huge = any(v.huge for v in vmas)
        by_key = np.argsort(key0, kind="stable")
        self._key0 = key0[by_key]
        self._slot_less_key = (slot0 - key0)[by_key]
        self._key_end = (key0 + pages)[by_key]

    def vma_of(self, slots: Slots) -> I64:
        """Return the rank of each slot's VMA by slot. int64[n] -> int64[n]."""
        return _rank(self.slot0, slots)

    def keys(self, slots: Slots, vma_of: I64) -> ItemKeys:
        """Return the item keys of slots whose VMAs are known."""
        return slots + self._key_less_slot[vma_of]

    def along(self, slots: Slots) -> tuple[ItemKeys, Bool]:
        """Return item keys of ascending slots, and whether their VMAs are mergeable; quicker than `keys`."""
        if len(slots) == 0:
            return slots, np.empty(0, np.bool_)
        low, high = np.searchsorted(self.slot0, slots[[0, -1]], "right")
        vmas = slice(int(low) - 1, int(high))
        count = np.diff(np.searchsorted(slots, self.slot0[vmas]), append=len(slots))
        keys = np.repeat(self._key_less_slot[vmas], count)
        keys += slots
        return keys, np.repeat(self.mergeable[vmas], count)

    def slots(self, keys: ItemKeys) -> Slots:
        """Return the slots of item keys; -1 where nothing is mapped."""
        if len(self._key0) == 0:
            return np.full(len(keys), -1)
        at = _rank(self._key0, keys)
        found = (at >= 0) & (keys < self._key_end[at])
        return np.where(found, keys + self._slot_less_key[at], -1)


def _start(vma: Vma) -> int:
    return vma.start


def _adjacent(vma: Vma, behind: Vma) -> bool:
    """Return whether two VMAs touch, and have adjacent slots."""
    return vma.end == behind.start and vma.slot0 + vma.pages == behind.slot0


def _rank(starts: I64, values: I64) -> I64:
    """Return which of the ascending starts is the last that is not above each value; -1 if all are.

    With many ascending values it searches the starts among the values, which takes less time.
    """
    if len(values) > max(len(starts), _MANY) and (values[1:] >= values[:-1]).all():
        count = np.diff(np.searchsorted(values, starts), prepend=0, append=len(values))
        return np.repeat(np.arange(-1, len(starts)), count)
    return np.searchsorted(starts, values, "right") - 1
