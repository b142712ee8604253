"""What ksmd's visits to pages ask of the trees."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Event(IntEnum):
    """What a visit asks of the trees."""

    #: Look this page up, and merge it or let it wait.
    CANDIDATE = 0
    #: The same; other entries map its frame too, since a fork.
    CANDIDATE_SHARED = 1
    #: The item leaves the stable node of this frame.
    LEAVE = 2
    #: The entry maps a KSM frame since a fork: the item joins that stable node.
    JOIN_OWN = 3
    #: Only the stable tree is searched; nothing happens if it does not have the content.
    STABLE_ONLY = 4
    #: The content has changed; but a frame, shared since a fork, may just have become a KSM frame: JOIN_OWN.
    VOLATILE_SHARED = 5
    #: As STABLE_ONLY; what is not found is mapped to the zero page.
    STABLE_OR_ZERO = 6
    #: As CANDIDATE; the frame is a KSM frame without a stable node, and so cannot be replaced.
    CANDIDATE_ORPHAN = 7
    #: A page that was found gone while it waited in the unstable tree leaves it.
    ERASE = 8
    #: The entry maps a KSM frame that has migrated out of its tree: + 1 if the item hangs on its stable node,
    #: + 2 if the item has no checksum of this content yet.
    STRAY = 9
    STRAY_HANGING = 10
    STRAY_UNSEEN = 11
    STRAY_HANGING_UNSEEN = 12


#: By event, whether it is that of a page that waits in the unstable tree if nothing else comes of it.
CANDIDATES = np.isin(np.arange(len(Event)), (Event.CANDIDATE, Event.CANDIDATE_SHARED, Event.CANDIDATE_ORPHAN))
