"""Drivers as scenarios use them."""

from __future__ import annotations

from typing import Protocol

from cluster.arrays.words import I64
from cluster.compaction.pages.movable_operations import MovableOperations


class ScenarioDriver(MovableOperations, Protocol):
    """A driver as scenarios use it. Its units are pages, or what it stores in pages."""

    def allocate(self, count: int) -> I64:
        """Take at most `count` new units; return their numbers. int64[0..count]."""

    def discard(self, units: I64) -> None:
        """Give up units. int64[n], each once."""
