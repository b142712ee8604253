"""Address spaces: mm_struct and its VMAs, and the translation between virtual pages and slots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from cluster.arrays.words import I64, VPN_BITS, Bool
from cluster.mm.anon_vma import AnonVmas
from cluster.mm.page_table import PageTable
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import PolicySpec

#: With fewer values, to look for each takes no longer than to see whether they ascend.
_MANY = 1 << 12


@dataclass(slots=True)
class Vma:
    """A run of virtual pages with one placement policy; slot0 is the slot of its first page.

    A part of one of the kernel's VMAs, or all of it: those are in `Mm.anon_vmas`.
    """

    mm: int
    start: int
    pages: int
    slot0: int
    mergeable: bool
    policy: PolicySpec
    name: str = ""
    #: munmap() or exit() came by; the slots stay until ksmd has seen that.
    unmapped: bool = False

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
    #: exit() was called; what is left goes when ksmd comes by.
    exited: bool = False
    #: ksm_merging_pages and ksm_rmap_items that it started with, where fork copies them.
    inherited: tuple[int, int] = (0, 0)

    @property
    def mergeable(self) -> bool:
        return not self.exited and any(v.mergeable for v in self.vmas)


class AddressSpaces:
    """All processes of one node, with vectorised look-ups over their VMAs."""

    def __init__(self, table: PageTable) -> None:
        self.mms: dict[int, Mm] = {}
        self._table = table
        self._index: _Index | None = None

    def changed(self) -> None:
        """To be called after any change to the VMAs."""
        self._index = None

    @property
    def index(self) -> _Index:
        if self._index is None:
            self._index = _Index([v for mm in self.mms.values() for v in mm.vmas])
        return self._index

    def mmap(self, mm: Mm, start: int, pages: int, policy: PolicySpec, *, mergeable: bool) -> Vma:
        """A new VMA without any page.

        Raises SimulationError if the range is taken.
        """
        vma = self.map(mm, start, pages, policy, mergeable=mergeable)
        mm.anon_vmas.mmap(start, start + pages, mergeable=mergeable)
        return vma

    def map(
        self, mm: Mm, start: int, pages: int, policy: PolicySpec, *, mergeable: bool, name: str = ""
    ) -> Vma:
        """Slots for a range of pages, whose VMA is there already.

        Raises SimulationError if the range is taken.
        """
        if any(v.start < start + pages and start < v.end for v in mm.vmas):
            raise SimulationError(f"pages {start:#x}..{start + pages:#x} overlap an existing mapping")
        vma = Vma(mm.id, start, pages, self._table.allocate(pages), mergeable, policy, name)
        mm.vmas.append(vma)
        mm.vmas.sort(key=lambda v: v.start)
        self.changed()
        return vma

    def split(self, mm: Mm, start: int, end: int) -> list[Vma]:
        """The mapped VMAs in virtual pages [start, end), after splitting those that reach over its ends."""
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

    def slots(self, mm: Mm, vpns: I64) -> I64:
        """Slots of virtual pages of one process; -1 where nothing is mapped."""
        return self.index.slots((mm.id << VPN_BITS) | vpns)


class _Index:
    """VMAs as sorted arrays, by slot and by item key."""

    def __init__(self, vmas: list[Vma]) -> None:
        self.vmas = vmas
        slot0 = np.array([v.slot0 for v in vmas], np.int64)
        key0 = np.array([(v.mm << VPN_BITS) | v.start for v in vmas], np.int64)
        pages = np.array([v.pages for v in vmas], np.int64)
        self.by_slot = np.argsort(slot0, kind="stable")
        self._slot0 = slot0[self.by_slot]
        self._key_less_slot = (key0 - slot0)[self.by_slot]
        #: By rank of the slot: whether the VMA is mergeable.
        self.mergeable: Bool = np.array([v.mergeable for v in vmas], np.bool_)[self.by_slot]
        by_key = np.argsort(key0, kind="stable")
        self._key0 = key0[by_key]
        self._slot_less_key = (slot0 - key0)[by_key]
        self._key_end = (key0 + pages)[by_key]

    def vma_of(self, slots: I64) -> I64:
        """For each mapped slot, the rank of its VMA by slot."""
        return _rank(self._slot0, slots)

    def keys(self, slots: I64, vma_of: I64) -> I64:
        """Item keys of slots whose VMAs are known."""
        return slots + self._key_less_slot[vma_of]

    def along(self, slots: I64) -> tuple[I64, Bool]:
        """Item keys of mapped slots, and whether their VMAs are mergeable. Quicker, for ascending slots."""
        if len(slots) == 0:
            return slots, np.empty(0, np.bool_)
        low, high = np.searchsorted(self._slot0, slots[[0, -1]], "right")
        vmas = slice(int(low) - 1, int(high))
        count = np.diff(np.searchsorted(slots, self._slot0[vmas]), append=len(slots))
        keys = np.repeat(self._key_less_slot[vmas], count)
        keys += slots
        return keys, np.repeat(self.mergeable[vmas], count)

    def slots(self, keys: I64) -> I64:
        """Slots of item keys; -1 where nothing is mapped."""
        if len(self._key0) == 0:
            return np.full(len(keys), -1)
        at = _rank(self._key0, keys)
        found = (at >= 0) & (keys < self._key_end[at])
        return np.where(found, keys + self._slot_less_key[at], -1)


def _rank(starts: I64, values: I64) -> I64:
    """For each value, which of the ascending starts is the last that is not behind it; -1 if all are.

    Starts are looked for among many ascending values, which takes less time than the other way round.
    """
    if len(values) > max(len(starts), _MANY) and (values[1:] >= values[:-1]).all():
        count = np.diff(np.searchsorted(values, starts), prepend=0, append=len(values))
        return np.repeat(np.arange(-1, len(starts)), count)
    return np.searchsorted(starts, values, "right") - 1
