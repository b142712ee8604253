"""The heap between windows: libc keeps what temporary arrays leave, often as much as the state itself."""

from __future__ import annotations

import ctypes

from cluster.mailbox import Inbox

#: Rows of messages after which a window leaves much: some 20 MiB. Less is not worth the page faults.
MUCH = 1 << 19


class Heap:
    """Gives free memory back at the end of windows that moved much."""

    def __init__(self) -> None:
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
