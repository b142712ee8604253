"""The visits of one scan window as the home of their contents sorts them."""

from __future__ import annotations

from typing import NamedTuple

from cluster.arrays.columns import rows_where
from cluster.arrays.words import I64, U8, Bool, FrameWords, ItemKeys


class SortedVisits(NamedTuple):
    """Visits to pages of some contents, sorted by content and, within it, by scan position."""

    #: int64[visits]: index of the content.
    group: I64
    #: int64[visits]: scan position.
    pos: I64
    key: ItemKeys
    frame: FrameWords
    #: uint8[visits]: VisitKind.
    kind: U8
    #: int64[visits]: row of the page in the unstable tree, if its visit follows from the tree; else -1.
    row: I64

    def where(self, chosen: Bool) -> SortedVisits:
        """Return the chosen visits; chosen is bool[visits]."""
        rows = rows_where(chosen)
        return self if isinstance(rows, slice) else self.of(rows)

    def of(self, rows: I64) -> SortedVisits:
        """Return the visits of these rows."""
        return SortedVisits._make(column[rows] for column in self)
