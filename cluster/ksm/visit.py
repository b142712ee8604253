"""What ksmd's visits to pages ask of the trees."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64, U8, Digests, FrameWords, ItemKeys


class VisitKind(IntEnum):
    """What a visit asks of the trees."""

    #: Look this page up, and merge it or put it into the unstable tree.
    CANDIDATE = 0
    #: The same; other entries map its frame too, since a fork.
    CANDIDATE_SHARED = 1
    #: The item leaves the stable node of this frame (remove_rmap_item_from_tree()).
    LEAVE = 2
    #: The entry maps a KSM frame since a fork: the item joins that stable node (stable_tree_append()).
    APPEND = 3
    #: Search only the stable tree; nothing happens if it does not have the content.
    STABLE_ONLY = 4
    #: The content has changed; but the frame, shared since a fork, may just have become a KSM frame: APPEND.
    VOLATILE_SHARED = 5
    #: As STABLE_ONLY; a page that is not found is mapped to the zero page.
    STABLE_OR_ZERO = 6
    #: As CANDIDATE; the frame cannot be replaced: it is pinned, or a KSM frame without a stable node.
    CANDIDATE_FIXED = 7
    #: A page that was found gone leaves the unstable tree.
    ERASE = 8
    #: The entry maps a KSM frame that has migrated out of its tree: + 1 if the item is on its stable node,
    #: + 2 if the item has no checksum of this content yet.
    MIGRATED = 9
    MIGRATED_ADDED = 10
    MIGRATED_CHANGED = 11
    MIGRATED_ADDED_CHANGED = 12
    #: As STABLE_ONLY; the frame cannot be replaced.
    STABLE_ONLY_FIXED = 13
    #: As CANDIDATE, with use_zero_pages: a page of zeros of a huge page, which is to be split for it.
    HUGE_ZERO = 14


#: bool[kind]: whether the page goes into the unstable tree if the stable tree does not have its content.
CANDIDATES = np.isin(
    np.arange(len(VisitKind)), (VisitKind.CANDIDATE, VisitKind.CANDIDATE_SHARED, VisitKind.CANDIDATE_FIXED)
)


class Arrivals(NamedTuple):
    """Visits in the order in which their messages came: by sending node, then as that node sent them."""

    digest: Digests
    key: ItemKeys
    frame: FrameWords
    kind: U8

    def without(self, rows: I64) -> Arrivals:
        """Return the others."""
        if len(rows) == 0:
            return self
        kept = np.ones(len(self.digest), np.bool_)
        kept[rows] = False
        return Arrivals._make(column[kept] for column in self)
