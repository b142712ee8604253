"""Why a result of ksmd depends on the shape of a red-black tree."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """What a search met that it might not meet in a tree of another shape."""

    #: Pages of the unstable tree that changed or were unmapped after their insertion.
    CHANGED_UNSTABLE = "changed-unstable"
    #: A stale stable node, or a chain that needed pruning, of another content than the one searched for.
    STALE_STABLE = "stale-stable"
