"""The shapes of trees after a window that was decided without looking at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from cluster.arrays.words import I64
from cluster.ksm.decide.events import Solved
from cluster.ksm.tree_shape import Shape

#: A scan position, and what happened there.
_Op = tuple[int, Callable[[], None]]


def follow(shape: Shape, solved: list[Solved], keys: I64) -> None:
    """Repeats in scan order what searches put into trees and took out; `keys` are those of waiting rows."""
    ops = [op for part in solved for op in _ops(shape, part, keys)]
    for _, op in sorted(ops, key=lambda op: op[0]):
        op()


def _ops(shape: Shape, s: Solved, keys: I64) -> Iterator[_Op]:
    plan, events = s.plan, s.events
    digests = s.digests[s.problem.group]
    pos, key, digest = events.pos.tolist(), events.key.tolist(), digests.tolist()
    for event in np.flatnonzero(plan.waits).tolist():
        yield pos[event], partial(shape.put, key[event], digest[event])
    # The first event of a new stable node is that of the page which waited, unless it had waited before.
    new = np.flatnonzero(plan.target >= len(s.row))
    nodes, first = np.unique(plan.target[new], return_index=True)
    first_event = dict(zip(nodes.tolist(), new[first].tolist(), strict=True))
    for event in np.flatnonzero(plan.new_stable_page).tolist():
        group, node = int(s.problem.group[event]), int(plan.target[event])
        waiting = first_event[node]
        if waiting == event:
            waited = int(keys[s.waiting_row[group]])
        else:
            waited = key[waiting]
            yield pos[waiting], partial(shape.put, waited, digest[waiting])
        yield pos[event], partial(shape.take, waited)
        yield pos[event], partial(shape.plant, digest[event])
