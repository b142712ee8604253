"""The contract between the VM and drivers of movable pages that are not on the LRU lists.

A driver implements `MovableOperations`, registers with `Memory.register` and marks its pages with
`set_page_movable` while they are locked. Calls are array-valued: one call for a batch of pages, which are all
locked during it, with the same meaning as calls page by page in the order of the array.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, IntFlag
from functools import cache
from typing import Protocol

import numpy as np

from cluster.arrays.words import I64, Bool, Pfns
from cluster.spec.errors import SimulationError

#: More attempts than the VM makes: what `predict_retries` says of a page that does not move.
NEVER_MOVES = np.iinfo(np.int32).max


class IsolateMode(IntFlag):
    """isolate_mode_t (include/linux/mmzone.h)."""

    NONE = 0
    ASYNC_MIGRATE = 4
    UNEVICTABLE = 8


class MigrateMode(IntEnum):
    """enum migrate_mode (include/linux/migrate_mode.h)."""

    ASYNC = 0
    SYNC_LIGHT = 1
    SYNC = 2


class PageStateError(SimulationError):
    """A driver or the VM broke the contract; the message names the pages."""


class MovableOperations(Protocol):
    """What a driver does for the VM. All pages of one call belong to this driver and are locked."""

    def isolate_page(self, pages: Pfns, mode: IsolateMode) -> Bool:
        """Return which of these pages the VM may have; those get PG_isolated. int64[n] -> bool[n]."""

    def migrate_page(self, newpages: Pfns, pages: Pfns, mode: MigrateMode) -> I64:
        """Move contents and metadata of pages[i] to newpages[i], in order, up to the first that fails.

        Return 0 for each page moved; after the first other answer (-EAGAIN: try again, else: give up) the
        driver stops, as that page's target is offered to the next page. A moved page must have been cleared
        (`clear_page_movable`), its new page set (`set_page_movable`). int64[n], int64[n] -> int64[1..n].
        """

    def putback_page(self, pages: Pfns) -> None:
        """Take back these isolated pages, which were not migrated. int64[n]."""


class PredictsRetries(MovableOperations, Protocol):
    """A driver that predicts which attempts move a page, so that the VM makes no others.

    The result is the same as without. A driver may call `predict_retries` by its old name, `foresee`.
    """

    def predict_retries(self, pages: Pfns, mode: MigrateMode) -> I64 | None:
        """Return how many attempts of each page from now on answer -EAGAIN before one moves it.

        Changes nothing. None if only trying can tell: if other answers are possible, isolation may be
        refused, or what happens to one page changes what another one answers. int64[n] -> int64[n].
        """

    def tried(self, pages: Pfns, times: I64) -> None:
        """Change what `times` attempts of each page that answer -EAGAIN would change. int64[n], int64[n]."""


def predicted_retries(operations: MovableOperations | None, pages: Pfns, mode: MigrateMode) -> I64 | None:
    """Ask the owner of these pages for `predict_retries`; None if it has no such method, or cannot tell."""
    predict = _predictor(operations)
    return None if predict is None else predict(pages, mode)


def _predictor(operations: object) -> Callable[[Pfns, MigrateMode], I64 | None] | None:
    """Return the bound `predict_retries` of these operations, or `foresee`, as older drivers call it."""
    name = _predictor_name(type(operations))  # type: ignore[arg-type]  # a type is hashable
    return getattr(operations, name, None)


@cache
def _predictor_name(cls: type) -> str:
    """Return the name that the class itself, or else its nearest base class, defines."""
    names = ("predict_retries", "foresee")
    return next((name for base in cls.__mro__ for name in names if name in vars(base)), names[0])
