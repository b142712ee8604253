"""Calls that may come twice or late: each is carried out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NumberedCalls:
    """The last call to each node, and what it led to.

    Numbers rise from 1. A caller that takes a dead one's place repeats its call, with the number of that.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, Any]] = {}

    def once(self, node: int, seq: int, work: Callable[[], T]) -> T:
        """Do the work of call `seq` if it is new. Return or raise what the work did, now or the first time.

        A call older than the last one changes nothing. Its caller is dead; what it returns is of no use.
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
