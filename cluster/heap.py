"""The heap: what temporary arrays leave stays with the process during a window, and goes after it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.mailbox import Inbox

#: Rows of messages after which a window leaves much: some 20 MiB. Less is not worth the page faults.
MUCH = 1 << 19

#: glibc's mallopt(3): how much free memory at the end of the heap is given back at once, and the least size
#: of arrays that get memory of their own, which goes back with each. By default an array's memory mostly goes
#: back, and the system fills the next one's pages with zeros again, at 1 to 6 µs a page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 64 << 20), (-3, 32 << 20)


def keep_free_memory() -> None:
    """Has libc keep what temporary arrays leave."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_MMAP_THRESHOLD)


class Heap:
    """Gives free memory back at the end of windows that moved much."""

    def __init__(self) -> None:
        keep_free_memory()
        self._rows = 0

    def took(self, inbox: Inbox) -> None:
        """A node of this process took these messages in."""
        self._rows += sum(len(columns[0]) for columns in inbox.values())

    def rest(self) -> None:
        """Nothing of these nodes is under way."""
        if self._rows >= MUCH:
            self._rows = 0
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
                trim(0)
