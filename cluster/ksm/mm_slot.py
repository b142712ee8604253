"""ksmd's list of processes and its cursor in it (struct ksm_mm_slot, ksm_scan)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, MAX_MMS_PER_NODE, MM_INDEX_BITS, VPN_BITS


class MmSlots:
    """The circular list as a plain one, from the first process of a pass to the last; and the cursor."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._list: list[int] = []
        #: Rank of the process being scanned, and the first virtual page not yet scanned.
        self.rank = 0
        self.vpn = 0
        #: Whether a pass is under way.
        self.in_pass = False
        self._ranks: I64 | None = None

    def __len__(self) -> int:
        return len(self._list)

    def __contains__(self, mm: int) -> bool:
        return mm in self._list

    @property
    def low(self) -> int:
        """Scan position of the cursor."""
        return (self.rank << VPN_BITS) | self.vpn

    @property
    def mms(self) -> tuple[int, ...]:
        """The processes, in the order of the pass."""
        return tuple(self._list)

    def enter(self, mms: list[int]) -> None:
        """Add processes behind the cursor, which between passes is the end of the list (__ksm_enter())."""
        at = self.rank if self.in_pass else len(self._list)
        self._list[at:at] = mms
        if self.in_pass:
            self.rank += len(mms)
        self._ranks = None

    def exit(self, mm: int, *, items: bool) -> bool:
        """Let a process exit; return whether it has left the list (__ksm_exit()).

        A process with rmap_items stays, as the next to be scanned, until ksmd has freed them.
        """
        at = self._list.index(mm)
        if self.in_pass and at == self.rank:
            self.vpn = 0
            return False
        self.remove(mm)
        if items:
            self._list.insert(self.rank + 1 if self.in_pass else 0, mm)
        return not items

    def remove(self, mm: int) -> None:
        """Remove a process in which a scan found nothing mergeable."""
        at = self._list.index(mm)
        del self._list[at]
        if at < self.rank:
            self.rank -= 1
        self._ranks = None

    def moved_to(self, position: int) -> None:
        """Set the cursor to a scan position of a pass under way."""
        self.rank, self.vpn = position >> VPN_BITS, position & ((1 << VPN_BITS) - 1)
        self.in_pass = True

    def start_pass(self) -> None:
        """Set the cursor to the start of the list, where no pass is under way."""
        self.rank = self.vpn = 0
        self.in_pass = False

    def ranks(self) -> I64 | None:
        """Return the ranks of all processes if the list has changed since the last call, else None.

        int64[nodes, width]: by node and index of the mm on it, -1 for one that is not in the list.
        """
        if self._ranks is not None:
            return None
        mms = np.array(self._list, np.int64)
        index = mms & (MAX_MMS_PER_NODE - 1)
        self._ranks = np.full((self._nodes, int(index.max(initial=0)) + 1), -1)
        self._ranks[mms >> MM_INDEX_BITS, index] = np.arange(len(mms))
        return self._ranks
