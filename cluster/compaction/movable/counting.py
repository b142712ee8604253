"""Counts by owner: of pages in use, and of what happens to the pages that the VM wants to move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import (
    IsolateMode,
    MigrateMode,
    MovableOperations,
    PredictsRetries,
    predicted_retries,
)
from cluster.compaction.pages.page_map import OWNER_SHIFT

GUESTS = "guests"  #: in reports, the name of the owner of pages of other nodes' drivers
UNMOVABLE = "unmovable"  #: the name of the kernel as the owner of its pages


class PagesInUse(NamedTuple):
    """How many pages an owner has that can move, or that never move."""

    owner: str
    movable: bool
    pages: int


def pages_in_use(memory: Memory, owners: Mapping[str, int]) -> Iterator[PagesInUse]:
    """Yield what each owner has in the node's zone, at last the kernel; `owners`: numbers by name.

    A page without the mark of movable pages is the driver's whose `page_at` has it, or else the kernel's.
    """
    zone = memory.zones[0]
    span = slice(zone.start, zone.end)
    used = memory.pages.refcount[span] > 0
    numbers = memory.pages.mapping[span] >> OWNER_SHIFT
    unmarked = used & (numbers == 0)
    for name, number in owners.items():
        yield PagesInUse(name, True, int(np.count_nonzero(used & (numbers == number))))
        page_at = getattr(memory.operations[number], "page_at", None)
        if page_at is not None:
            own = unmarked & (page_at[span] >= 0)
            yield PagesInUse(name, False, int(np.count_nonzero(own)))
            unmarked &= ~own
    yield PagesInUse(UNMOVABLE, False, int(np.count_nonzero(unmarked)))


@dataclass(slots=True)
class MoveCounts:
    """Numbers of pages of one owner."""

    isolated: int = 0  #: isolations granted
    refused: int = 0  #: isolations refused by the driver
    moved: int = 0
    retried: int = 0  #: attempts to move a page after its first one
    failed: int = 0  #: pages put back after an attempt that failed
    put_back: int = 0  #: pages put back, including pages never tried
    moved_away: int = 0  #: pages moved to other nodes; also in `moved`

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Counted:
    """Operations that wrap and count those of an owner, in their place in `Memory.operations`."""

    def __init__(self, memory: Memory, owner: int) -> None:
        operations = memory.operations[owner]
        if operations is None:
            raise ValueError(f"no owner has the number {owner}")
        self.owner = owner
        self.begin()
        self._inner: MovableOperations = operations
        #: bool[frames]: isolated, and an attempt failed since
        self._failed: Bool = np.zeros(memory.pages.count, np.bool_)
        memory.operations[owner] = self

    @property
    def page_at(self) -> I64 | None:
        """The number of the owner's page in each frame, below 0 for none; None without such an array."""
        numbers: I64 | None = getattr(self._inner, "page_at", None)
        return numbers

    def begin(self) -> None:
        """Count from 0 again."""
        self.counts = MoveCounts()
        self.attempts = 0  #: pages for which the owner was asked to move them

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        granted = self._inner.isolate_page(pages, mode)
        self._failed[pages] = False
        count = int(np.count_nonzero(granted))
        self.counts.isolated += count
        self.counts.refused += len(pages) - count
        return granted

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        answers = self._inner.migrate_page(newpages, pages, mode)
        tried = pages[: len(answers)]
        self.attempts += len(tried)
        self.counts.moved += len(tried) - int(np.count_nonzero(answers))
        self.counts.retried += int(np.count_nonzero(self._failed[tried]))
        self._failed[tried] = answers != 0
        return answers

    def predict_retries(self, pages: I64, mode: MigrateMode) -> I64 | None:
        return predicted_retries(self._inner, pages, mode)

    def tried(self, pages: I64, times: I64) -> None:
        # the VM calls it only if the owner has predicted its retries
        cast("PredictsRetries", self._inner).tried(pages, times)
        attempts = int(times.sum())
        failed = pages[times > 0]
        self.attempts += attempts
        self.counts.retried += attempts - int(np.count_nonzero(~self._failed[failed]))
        self._failed[failed] = True

    def putback_page(self, pages: I64) -> None:
        self.counts.failed += int(np.count_nonzero(self._failed[pages]))
        self.counts.put_back += len(pages)
        self._inner.putback_page(pages)
