"""Counts of reverse mapping walks over KSM frames (rmap_walk_ksm()): how many, and how long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

from cluster.arrays.words import Array


class RmapWalks(NamedTuple):
    """Walks over the mappings of KSM frames that were to move.

    number: of walks; mappings: all that these walks came to; longest: the most of one walk.
    """

    number: int = 0
    mappings: int = 0
    longest: int = 0

    def plus(self, mappings: Array, times: Array | int = 1) -> Self:
        """Return these walks and those over frames with so many mappings, each made `times` times. int[n]."""
        if len(mappings) == 0:
            return self
        made = mappings * 0 + times
        return self._replace(
            number=self.number + int(made.sum()),
            mappings=self.mappings + int((mappings * made).sum()),
            longest=max(self.longest, int(mappings[made > 0].max(initial=0))),
        )


NO_WALKS = RmapWalks()


def joined_walks(parts: Iterable[RmapWalks]) -> RmapWalks:
    """Return the counts of several nodes or passes together."""
    parts = list(parts)
    return RmapWalks(
        sum(part.number for part in parts),
        sum(part.mappings for part in parts),
        max((part.longest for part in parts), default=0),
    )
