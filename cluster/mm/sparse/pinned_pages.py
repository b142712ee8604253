"""Pages of one node's processes that are pinned (mm/gup.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in
from cluster.arrays.words import Bool, Slots, empty


class PinnedPages:
    """Slots of pages whose frames have a reference that is no mapping, as registered buffers have.

    Such a page has a frame of its own, which neither merges nor moves. A pin ends with the mapping.
    """

    def __init__(self) -> None:
        self._slots: Slots = empty()

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, slots: Slots) -> None:
        self._slots = np.union1d(self._slots, slots)

    def take(self, slots: Slots) -> Slots:
        """Remove those of these pages that are here, and return them."""
        gone = slots[self.among(slots)]
        self._slots = np.setdiff1d(self._slots, gone)
        return gone

    def among(self, slots: Slots) -> Bool:
        """Return which pages are here. int64[n] -> bool[n]."""
        return is_in(slots, self._slots)

    def slots(self) -> Slots:
        """Return all slots, ascending."""
        return self._slots
