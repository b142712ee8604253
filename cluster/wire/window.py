"""The part of a pass that ksmd scans at once."""

from __future__ import annotations

from dataclasses import dataclass

#: Greater than every scan position.
END = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Window:
    """Scan positions [low, high) of the pass with this number."""

    pass_number: int
    low: int = 0
    high: int = END
    #: Sequence number shared by scan windows and migrations; it becomes the generation of a KSM frame word.
    seq: int = 0
    #: A new pass starts here.
    first: bool = True
    #: All searches prune chains, which is due every `stable_node_chains_prune_millisecs`.
    prune: bool = False
    #: Searches of the stable tree in the window before this one, for each stable node; 0 in the first window.
    searches: float = 0.0
    #: There may be huge pages.
    huge: bool = False
