"""How much of a pass ksmd scans in one go."""

from __future__ import annotations

from dataclasses import dataclass

#: Behind every scan position.
END = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Window:
    """Scan positions [low, high) of the pass with this number."""

    pass_number: int
    low: int = 0
    high: int = END
    #: Of the window itself, among all windows and migrations.
    number: int = 0
    #: A new pass starts here.
    first: bool = True
    #: Searches prune chains.
    prune: bool = False
