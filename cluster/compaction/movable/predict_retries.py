"""Moving a whole batch at once, if it is known how often each page answers -EAGAIN (`PredictsRetries`).

Attempts go in passes: all pages of the batch in its order, then again those that answered -EAGAIN, and so on.
A target is taken for every attempt, and offered to the next one if the page did not move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import (
    MigrateMode,
    PageStateError,
    PredictsRetries,
    foreseeing,
)
from cluster.compaction.pages.page_map import PG_LOCKED

if TYPE_CHECKING:
    from cluster.compaction.movable.migrate_pages import Targets

MAX_PASSES = 10  #: migrate calls for a page that answers -EAGAIN
_NO_PAGES: I64 = np.zeros(0, np.int64)


@dataclass(slots=True)
class Plan:
    """What becomes of a batch. `old` move to `new`, in this order; the others in the order of the batch.

    times: attempts of each page of the batch that answer -EAGAIN; None for none. retry: the last attempt did.
    untried: pages that have no attempt in the last pass, for want of a target.
    """

    batch: I64
    times: I64 | None
    old: I64
    new: I64
    retry: I64
    untried: I64


def foresee(memory: Memory, batch: I64, mode: MigrateMode) -> I64 | None:
    """How often each page will answer -EAGAIN; None if that is not known of all. int64[n]."""
    again = np.empty(len(batch), np.int64)
    for operations, which in owners(memory, batch):
        if operations is None or (known := operations.foresee(batch[which], mode)) is None:
            return None
        again[which] = known
    return again


def plan(batch: I64, again: I64, targets: Targets, made: I64 | None = None) -> Plan:
    """All attempts that the pages of a batch need, as if made one after the other; takes the targets.

    made: passes that the pages have behind them, if any: p + 1 for some, then p for the rest. int64[n]
    """
    if made is None and np.count_nonzero(again) == 0:
        new = take(targets, len(batch))
        return Plan(batch, None, batch[: len(new)], new, _NO_PAGES, batch[len(new) :])
    made = np.zeros(len(batch), np.int64) if made is None else made
    moves_in = made + again
    order = np.argsort(moves_in, kind="stable")[: np.count_nonzero(moves_in < MAX_PASSES)]
    new = take(targets, len(order))
    complete = len(new) == len(order)
    order = order[: len(new)]
    start = int(made[-1]), int(np.count_nonzero(made > made[-1]))
    end = after_last(moves_in, order, start)
    if end is not None and complete and len(probe := targets.take(1, len(new))):
        targets.give_back(probe)
        end = None
    number, place = end or (MAX_PASSES, 0)
    tried = np.arange(len(batch)) < place
    times = np.minimum(moves_in, number + tried) - made
    if end is None:
        return Plan(batch, times, batch[order], new, batch[moves_in >= MAX_PASSES], _NO_PAGES)
    retry, untried = batch[tried & (moves_in > number)], batch[~tried & (moves_in >= number)]
    return Plan(batch, times, batch[order], new, retry, untried)


def carry_out(memory: Memory, plan: Plan, mode: MigrateMode) -> None:
    """Let the owners of the pages, which are locked, do what was planned."""
    if plan.times is not None:
        for operations, which in owners(memory, plan.batch):
            if operations is not None:
                operations.tried(plan.batch[which], plan.times[which])
    if len(plan.old) == 0:
        return
    memory.pages.flags[plan.new] = PG_LOCKED
    for operations, which in owners(memory, plan.old):
        old, new = plan.old[which], plan.new[which]
        if operations is None or np.count_nonzero(operations.migrate_page(new, old, mode)):
            raise PageStateError(f"foreseen to move, but did not: some of {old[:8].tolist()}")


def take(targets: Targets, count: int) -> I64:
    """So many targets, or as many as there are."""
    taken = targets.take(count)
    while len(taken) < count and len(more := targets.take(count - len(taken), len(taken))):
        taken = np.concatenate([taken, more])
    return taken


def owners(memory: Memory, batch: I64) -> Iterator[tuple[PredictsRetries | None, I64 | slice]]:
    """Whose pages these are, and which of them."""
    words = memory.pages.mapping[batch]
    mine = seen = words == words[0]
    if np.count_nonzero(seen) == len(batch):
        yield foreseeing(memory.operations_of(int(words[0]))), slice(None)
        return
    while True:
        yield foreseeing(memory.operations_of(int(words[mine.argmax()]))), mine.nonzero()[0]
        if np.count_nonzero(seen) == len(batch):
            return
        mine = words == words[seen.argmin()]
        seen = seen | mine


def after_last(moves_in: I64, order: I64, start: tuple[int, int] = (0, 0)) -> tuple[int, int] | None:
    """Pass and place of the attempt after the last of these moves, or the first attempt; None: there is none.

    moves_in: the pass in which each page moves. int64[n], int64[0..n]
    """
    number, place = (int(moves_in[order[-1]]), int(order[-1]) + 1) if len(order) else start
    rest = (moves_in[place:] >= number).nonzero()[0]
    if len(rest):
        return number, place + int(rest[0])
    number += 1
    places = (moves_in >= number).nonzero()[0]
    return (number, int(places[0])) if len(places) and number < MAX_PASSES else None
