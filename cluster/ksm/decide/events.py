"""Events of one scan window as the trees' home sorts them."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.arrays.columns import rows_where
from cluster.arrays.words import I64, U8, U64, Bool
from cluster.ksm.decide.plan import Plan, Problem


@dataclass(slots=True)
class Events:
    """Sorted by content and scan position; `row` is that of a waiting page's visit, or -1."""

    group: I64
    pos: I64
    key: I64
    frame: I64
    kind: U8
    row: I64

    def where(self, chosen: Bool) -> Events:
        rows = rows_where(chosen)
        return self if isinstance(rows, slice) else self.of(rows)

    def of(self, rows: I64) -> Events:
        return Events(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(slots=True)
class Solved:
    """Some contents' problem and plan, and where the tables have them."""

    problem: Problem
    plan: Plan
    events: Events
    #: Rows of the stable nodes; of each content the row of the page that waits, or -1; its digest.
    row: I64
    waiting_row: I64
    digests: U64
