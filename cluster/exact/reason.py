"""Why what ksmd did hangs on the shape of a red-black tree."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """What a search met on its way that it would not have met in a tree of another shape."""

    #: Pages of the unstable tree that changed or went after they had been put in.
    CHANGED_UNSTABLE = "changed-unstable"
    #: A stale stable node, or a chain with something to tidy up, of another content than the one looked for.
    STALE_STABLE = "stale-stable"
