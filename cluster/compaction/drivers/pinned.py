"""A driver without migration: its pages never move."""

from __future__ import annotations

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.pages.page_map import PageKind


class Pinned(PageDriver):
    """A driver as before the kernel had an interface for migration: its pages are not marked movable."""

    kind = PageKind.UNMOVABLE

    def make_movable(self, pfns: I64) -> None:
        """Change nothing: the pages stay unmovable."""
