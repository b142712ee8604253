"""Calls that may arrive twice or late, each carried out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NumberedCalls:
    """The last call to each node, and its outcome.

    Numbers rise from 1. The actor that replaces a dead caller repeats its call under the same number.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, Any]] = {}

    def once(self, node: int, seq: int, work: Callable[[], T]) -> T:
        """Do the work of call `seq` if it is new. Return or raise what the work did, now or the first time.

        A call older than the last one does no work. Its caller is dead, so its return value is not used.
        """
        last, outcome = self._last.get(node, (0, None))
        if seq > last:
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            self._last[node] = seq, outcome
        if isinstance(outcome, Exception):
            raise outcome
        done: T = outcome
        return done
