"""Moving a whole batch at once, if it is known how often each page answers -EAGAIN (`PredictsRetries`).

Attempts go in passes, as in `RetryPasses`. A target is taken for every attempt, and offered to the next one
if the page did not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from cluster.arrays.words import I64, Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.page_owners import by_owner
from cluster.compaction.movable.retry_passes import ASYNC_PASSES, MAX_PASSES
from cluster.compaction.movable.targets import Targets, take_targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import (
    MigrateMode,
    PageStateError,
    PredictsRetries,
    predicted_retries,
)

_NO_PAGES: Pfns = np.zeros(0, np.int64)


@dataclass(slots=True)
class MigrationPlan:
    """The outcome of a batch. `old` move to `new`, in this order; the others are in the order of the batch.

    eagain_counts: attempts of each page of the batch that answer -EAGAIN; None for none. retry: pages whose
    last attempt did. untried: pages without an attempt in the last pass, which is `number`, for want of a
    target, or, if the plan is to go on, because further attempts depend on what these moves change.
    """

    batch: Pfns
    eagain_counts: I64 | None
    old: Pfns
    new: Pfns
    retry: Pfns
    untried: Pfns
    number: int = MAX_PASSES - 1
    goes_on: bool = False


def predict_retries(memory: Memory, batch: Pfns, mode: MigrateMode, rules: CompactionRules) -> I64 | None:
    """Return how often each page will answer -EAGAIN; None if an owner cannot tell. int64[n] -> int64[n].

    None also if the first attempts are made in async mode, and the mode matters to a page that needs more.
    """
    first = first_mode(mode, rules)
    eagain_counts = _predicted(memory, batch, first)
    if first == mode or eagain_counts is None or not np.count_nonzero(late := eagain_counts >= ASYNC_PASSES):
        return eagain_counts
    in_mode = _predicted(memory, batch[late], mode)
    return eagain_counts if in_mode is not None and (in_mode == eagain_counts[late]).all() else None


def _predicted(memory: Memory, batch: Pfns, mode: MigrateMode) -> I64 | None:
    eagain_counts = np.empty(len(batch), np.int64)
    for operations, which in by_owner(memory, batch):
        known = predicted_retries(operations, batch[which], mode)
        if known is None:
            return None
        eagain_counts[which] = known
    return eagain_counts


def first_mode(mode: MigrateMode, rules: CompactionRules) -> MigrateMode:
    """Return the mode of the first attempts; those with predicted answers are all made in it."""
    return MigrateMode.ASYNC if rules.targets_first else mode


def first_attempts(mode: MigrateMode, rules: CompactionRules) -> int:
    """Return how many attempts are made pass by pass; further ones are made page by page."""
    return ASYNC_PASSES if rules.targets_first and mode != MigrateMode.ASYNC else MAX_PASSES


def keep_targets(eagain_counts: I64, new: Pfns, first: int) -> tuple[I64, Pfns, Pfns]:
    """Return the pages of a batch that move, as indices in this order, their targets, and unused targets.

    Each page has got a target, and keeps it for its `first` attempts. The targets of pages that need more go
    back one by one, and are taken again from the last to the first. int64[n], int64[n] -> three int64[0..n].
    """
    early = eagain_counts < first
    order = np.argsort(eagain_counts, kind="stable")[: np.count_nonzero(early)]
    late, back = (~early).nonzero()[0], new[~early][::-1]
    later = late[eagain_counts[late] < MAX_PASSES]
    used = len(later)
    return np.concatenate([order, later]), np.concatenate([new[order], back[:used]]), back[used:]


def plan_migration(
    batch: Pfns, eagain_counts: I64, targets: Targets, passes: I64 | None = None, room: int | None = None
) -> MigrationPlan:
    """Plan all attempts that the pages of a batch need, as if made one after the other; take the targets.

    passes: passes that the pages have behind them, if any: p + 1 for some, then p for the rest. int64[n]
    room: how many pages may move before other pages are free; None: each page that moves is free at once.
    """
    listed = room is not None
    if passes is None and np.count_nonzero(eagain_counts) == 0:
        wanted = len(batch[:room])
        new = take_targets(targets, wanted, all_first=listed)
        rest, goes_on = batch[len(new) :], len(new) == wanted < len(batch)
        return MigrationPlan(batch, None, batch[: len(new)], new, _NO_PAGES, rest, 0, goes_on)
    made = np.zeros(len(batch), np.int64) if passes is None else passes
    moves_in = made + eagain_counts
    order = np.argsort(moves_in, kind="stable")[: np.count_nonzero(moves_in < MAX_PASSES)]
    wanted = len(order[:room])
    new = take_targets(targets, wanted, all_first=listed)
    order = order[: len(new)]
    start = int(made[-1]), int(np.count_nonzero(made > made[-1]))
    end = next_attempt(moves_in, order, start)
    goes_on = end is not None and len(new) == wanted == room
    probes = end is not None and len(new) == wanted != room
    if probes and len(probe := targets.take(1, 0 if listed else len(new))):
        targets.give_back(probe)
        end = None
    number, place = end or (MAX_PASSES, 0)
    tried = np.arange(len(batch)) < place
    eagain_counts = np.minimum(moves_in, number + tried) - made
    if end is None:
        retry, untried = batch[moves_in >= MAX_PASSES], _NO_PAGES
    else:
        retry, untried = batch[tried & (moves_in > number)], batch[~tried & (moves_in >= number)]
    last = min(number, MAX_PASSES - 1)
    return MigrationPlan(batch, eagain_counts, batch[order], new, retry, untried, last, goes_on)


def carry_out(memory: Memory, plan: MigrationPlan, mode: MigrateMode) -> None:
    """Let the owners of the pages, which are locked, do what was planned."""
    if plan.eagain_counts is not None:
        for operations, which in by_owner(memory, plan.batch):
            if operations is not None:
                # an owner whose retries were predicted has this method
                cast("PredictsRetries", operations).tried(plan.batch[which], plan.eagain_counts[which])
    if len(plan.old) == 0:
        return
    memory.pages.lock_targets(plan.new)
    for operations, which in by_owner(memory, plan.old):
        old, new = plan.old[which], plan.new[which]
        if operations is None or np.count_nonzero(operations.migrate_page(new, old, mode)):
            raise PageStateError(f"predicted to move, but did not: some of {old[:8].tolist()}")


def next_attempt(moves_in: I64, order: I64, start: tuple[int, int] = (0, 0)) -> tuple[int, int] | None:
    """Return pass and place of the attempt after the last of these moves; None if there is none.

    Without any move, of the first attempt, which is at `start`.

    moves_in: the pass in which each page moves; order: indices of the pages that move. int64[n], int64[0..n]
    """
    number, place = (int(moves_in[order[-1]]), int(order[-1]) + 1) if len(order) else start
    rest = (moves_in[place:] >= number).nonzero()[0]
    if len(rest):
        return number, place + int(rest[0])
    number += 1
    places = (moves_in >= number).nonzero()[0]
    return (number, int(places[0])) if len(places) and number < MAX_PASSES else None
