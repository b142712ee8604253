"""Finds pages written between two moments, whether or not their bytes changed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ksmcluster.capture.pagemap import SOFT_DIRTY_BIT, Listing, own_entry
from ksmcluster.capture.process import ProcessSource
from ksmcluster.capture.tracing.tracked import Skipped
from ksmcluster.capture.tracing.writes import Pauses, PtraceWrites, can_trace
from ksmcluster.snapshot import WRITTEN
from ksmcluster.system.errors import UserError

_CLEAR_SOFT_DIRTY = b"4"
"""Value that, written to /proc/PID/clear_refs, resets the bits."""


class TrackWrites(StrEnum):
    """Values of --track-writes."""

    AUTO = "auto"
    SOFT_DIRTY = "soft-dirty"
    PTRACE = "ptrace"
    OFF = "off"


class WriteTracker(Protocol):
    """Finds the pages that processes wrote."""

    method: Literal["soft-dirty", "ptrace"]

    @property
    def pauses(self) -> Pauses:
        """How long the processes were stopped."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Memory whose writes are not tracked."""

    def written(self, source: ProcessSource, listing: Listing) -> NDArray[np.bool_]:
        """Return which pages of the listing were written since the last call, bool[n], and start again.

        The result of the first call for a process is meaningless.
        """

    def close(self) -> None:
        """Undo all changes of the processes."""


class SoftDirty:
    """Tracks writes by the kernel's soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)."""

    method: Literal["soft-dirty", "ptrace"] = "soft-dirty"
    pauses = Pauses(0, 0.0, 0.0)
    skipped: tuple[Skipped, ...] = ()

    def written(self, source: ProcessSource, listing: Listing) -> NDArray[np.bool_]:
        """Return the soft-dirty bits of the listing, and clear those of the process."""
        source.clear_refs(_CLEAR_SOFT_DIRTY)
        written: NDArray[np.bool_] = listing.flags & WRITTEN != 0
        return written

    def close(self) -> None:
        """Nothing to undo: the bits stay as they are."""


def has_soft_dirty() -> bool:
    """Return whether this kernel keeps soft-dirty bits."""
    return bool(own_entry() & SOFT_DIRTY_BIT)


def tracker_of(how: TrackWrites, sources: Sequence[ProcessSource]) -> WriteTracker | None:
    """Return a tracker; None if tracking is off, or, with `auto`, not possible.

    Raises UserError if the requested method is not available.
    """
    if how is TrackWrites.OFF or not sources:
        return None
    if how is not TrackWrites.PTRACE:
        if has_soft_dirty():
            return SoftDirty()
        if how is TrackWrites.SOFT_DIRTY:
            raise UserError(
                "this kernel keeps no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY): try --track-writes ptrace"
            )
        return None
    if why := can_trace():
        raise UserError(f"--track-writes ptrace: {why}")
    return PtraceWrites([source.pid for source in sources])
