"""Page table entries and rmap_items of the processes of one node, one slot a virtual page.

A VMA owns a run of slots. `pte` is a frame word, or one of the negative values below. `state` says what
the kernel would read from the page table entry, the rmap_item and the struct page together; an rmap_item
exists exactly where ITEM is set.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, U32, U64, Array, checksum, empty

#: Nothing mapped; the shared zero page; and from here downwards, swapped out: PTE_SWAP - number of the entry.
PTE_NONE = -1
PTE_ZERO = -2
PTE_SWAP = -3

#: An rmap_item exists.
ITEM = 1
#: It was put into the unstable tree (counted in pages_unshared) and not visited since.
UNSTABLE = 2
#: It hangs on a stable node (counted in pages_shared or pages_sharing).
STABLE = 4
#: The entry maps a KSM frame.
KSM = 8
#: ksmd's next visit has something to do here.
ACTIVE = 16
#: The private frame may have other mappings since a fork.
SHARED = 32
#: ksmd mapped the zero page here.
ZEROED = 64
#: The entry maps a frame.
PRESENT = 128
#: The item has a checksum.
CHECKED = 256
#: The stable node it hangs on is not that of the frame that the entry maps (NodeState.broken knows which).
BROKEN = 512
#: The unstable tree's home has the page (NodeState.waiting knows where that is).
WAITING = 1024
#: The KSM frame mapped has no stable node.
ORPHAN = 2048
#: CHECKED: the checksum is not that of the digest in `tree_key`.
ASIDE = 4096


class PageTable:
    """Slots as a structure of arrays; freed runs are used again, first fit."""

    def __init__(self) -> None:
        self.pte = np.empty(0, np.int64)
        self.state = np.empty(0, np.uint16)
        #: Digest under which the page hangs in a tree, or that its KSM frame has; else that of ksmd's
        #: last visit. Its checksum is the item's, nearly always.
        self.tree_key = np.empty(0, np.uint64)
        #: Of a waiting page, the home of its entry in the unstable tree. Empty where the digest says it.
        self.home = np.empty(0, np.uint16)
        #: smart_scan: visits without a merge, and visits still to be skipped. Empty unless it has been on.
        self.age = np.empty(0, np.uint8)
        self.remaining_skips = np.empty(0, np.uint8)
        self.size = 0
        self._holes: list[tuple[int, int]] = []
        self._kept = ["pte", "state", "tree_key"]
        #: Slots, ascending, and the checksums of those that are ASIDE; what others have here means nothing.
        self._aside: tuple[I64, U32] = empty(), empty(np.uint32)

    def keep(self, *names: str) -> None:
        """These columns have an element a slot from now on, 0 at first."""
        for name in names:
            if name not in self._kept:
                self._kept.append(name)
                setattr(self, name, np.zeros(len(self.pte), getattr(self, name).dtype))

    def checksums(self, slots: I64) -> U32:
        """What items remember of the contents at ksmd's last visits, if they are CHECKED."""
        sums = checksum(self.tree_key[slots])
        aside = rows_with(self.state[slots], ASIDE)
        if len(aside):
            found, of_found = self._aside
            sums[aside] = of_found[np.searchsorted(found, slots[aside])]
        return sums

    def remember(self, slots: I64, sums: U32) -> None:
        """CHECKED items have checksums that are not those of their digests."""
        if len(slots) == 0:
            return
        self.state[slots] &= ~np.uint16(ASIDE)
        old, of_old = self._aside
        kept = rows_with(self.state[old], ASIDE)
        slots, sums = np.concatenate([old[kept], slots]), np.concatenate([of_old[kept], sums])
        order = np.argsort(slots)
        self._aside = slots[order], sums[order]
        self.state[slots] |= ASIDE

    def rekey(self, slots: I64, digests: U64) -> None:
        """Pages get other digests, but no other checksums."""
        other = np.flatnonzero(self.tree_key[slots] != digests)
        slots, digests = slots[other], digests[other]
        sums = self.checksums(slots)
        self.tree_key[slots] = digests
        aside = np.flatnonzero(((self.state[slots] & CHECKED) != 0) & (sums != checksum(digests)))
        self.remember(slots[aside], sums[aside])

    def allocate(self, pages: int) -> int:
        """First slot of a run of empty slots."""
        for i, (start, length) in enumerate(self._holes):
            if length >= pages:
                self._holes[i] = (start + pages, length - pages)
                return start
        start = self.size
        self.size += pages
        if self.size > len(self.pte):
            self._grow(max(self.size, len(self.pte) * 3 // 2))
        self.pte[start : self.size] = PTE_NONE
        return start

    def _grow(self, capacity: int) -> None:
        for name in self._kept:
            old: Array = getattr(self, name)
            new = np.zeros(capacity, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def reserve(self, pages: int) -> None:
        """Makes room for so many slots in all, at once."""
        if pages > len(self.pte):
            self._grow(pages)

    def release(self, start: int, pages: int) -> None:
        """Gives a run of slots back; they must not map anything any more."""
        run = slice(start, start + pages)
        self.pte[run] = PTE_NONE
        self.state[run] = 0
        self.rejuvenate(run)
        self._holes.append((start, pages))

    def rejuvenate(self, slots: I64 | slice) -> None:
        """smart_scan knows nothing of these pages any more."""
        if len(self.age):
            self.age[slots] = 0
            self.remaining_skips[slots] = 0
