"""A driver that knows nothing of migration: its pages never move."""

from __future__ import annotations

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.pages.page_map import Kind


class Pinned(PageDriver):
    """What every driver was before there was an interface for it. Its pages are not marked movable."""

    kind = Kind.UNMOVABLE

    def make_movable(self, pfns: I64) -> None:
        """They stay unmovable."""
