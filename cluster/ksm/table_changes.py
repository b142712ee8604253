"""What a window changes in the tables of the trees: collected by `decide`, applied by `Trees.apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.words import I64, Array, Bool, Digests, FrameWords, ItemKeys

if TYPE_CHECKING:
    from cluster.ksm.tree_shape import Shape

#: Columns of a table by name, that of the digests under `digest`.
Columns = dict[str, Array]


class TableChanges:
    """Values to set, then rows to remove, then rows to add.

    Row numbers are those of the tables before the window. A later value for the same row and column replaces
    an earlier one.
    """

    def __init__(self, front: int, shape: Shape | None) -> None:
        #: Less than every `order` of a stable node, those to be added included.
        self.front = front
        #: The trees' shape after the window.
        self.shape = shape
        #: Column, rows and values in the table of stable nodes.
        self.stable_values: list[tuple[str, I64, Array]] = []
        self.stable_gone: list[I64] = []
        self.stable_added: list[Columns] = []
        self.unstable_gone: list[I64] = []
        self.unstable_added: list[Columns] = []
        self.migrating_gone: list[I64] = []
        self.migrating_added: list[Columns] = []
        self.empty_chains_gone: list[I64] = []
        self.empty_chains_added: list[Columns] = []
        #: Contents, ascending, which may have to be looked at again in the next window.
        self.unsettled: list[Digests] = []

    def copy(self) -> TableChanges:
        """Return the same changes, to which others can be added."""
        other = TableChanges(self.front, self.shape)
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(other, name, list(value))
        return other

    @property
    def empty(self) -> bool:
        """Return whether no content was looked at."""
        return not (self.unsettled or self.unstable_added or self.stable_added)

    def take_front(self, count: int) -> int:
        """Reserve so many places in front of all stable nodes; return the first."""
        self.front -= count
        return self.front

    def set_stable(self, column: str, rows: I64, values: Array) -> None:
        """Set values of stable nodes; their digests and frames stay."""
        if len(rows):
            self.stable_values.append((column, rows, values))

    def add_unstable(self, digests: Digests, keys: ItemKeys, frames: FrameWords) -> None:
        """Insert these pages into the unstable tree."""
        clean = np.zeros(len(keys), np.int32)
        holds = digests.view(np.int64)
        row: Columns = {"digest": digests, "key": keys, "frame": frames, "dirty": clean, "holds": holds}
        self.unstable_added.append(row)

    def add_stable(self, digests: Digests, frames: FrameWords, counts: I64, dup: Bool) -> None:
        """Insert stable nodes with so many items, in front of others of their contents."""
        new = len(digests)
        order = self.take_front(new) + np.arange(new)[::-1]
        row: Columns = {"digest": digests, "frame": frames, "count": counts, "dup": dup, "order": order}
        self.stable_added.append(row | {"dead": np.zeros(new, np.int8)})
