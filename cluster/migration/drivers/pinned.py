"""A driver that knows nothing of migration: its pages never move."""

from __future__ import annotations

from cluster.migration.drivers.base import PageDriver
from cluster.migration.pages import Kind
from cluster.words import I64


class Pinned(PageDriver):
    """What every driver was before there was an interface for it. Its pages are not marked movable."""

    kind = Kind.UNMOVABLE

    def make_movable(self, pfns: I64) -> None:
        """They stay unmovable."""
