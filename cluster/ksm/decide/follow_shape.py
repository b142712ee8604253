"""The shapes of trees after a window that was decided by `plan`, which does not look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from cluster.arrays.words import ItemKeys
from cluster.ksm.decide.plan_changes import PlannedContents
from cluster.ksm.tree_shape import Shape

#: A scan position, and what happened there.
_Op = tuple[int, Callable[[], None]]


def follow(shape: Shape, planned: list[PlannedContents], keys: ItemKeys) -> None:
    """Repeat in scan order what searches inserted and erased; `keys` are the unstable table's column."""
    ops = [op for part in planned for op in _ops(shape, part, keys)]
    for _, op in sorted(ops, key=lambda op: op[0]):
        op()


def _ops(shape: Shape, planned: PlannedContents, keys: ItemKeys) -> Iterator[_Op]:
    contents, plan = planned
    visits, groups = contents.visits, contents.problem.group
    digests = contents.digests[groups]
    pos, key, digest = visits.pos.tolist(), visits.key.tolist(), digests.tolist()
    for visit in np.flatnonzero(plan.waits).tolist():
        yield pos[visit], partial(shape.insert_unstable, key[visit], digest[visit])
    # The first visit of a new stable node is that of the page which waited, unless it had waited before.
    new = np.flatnonzero(plan.target >= len(contents.row))
    nodes, first = np.unique(plan.target[new], return_index=True)
    first_visit = dict(zip(nodes.tolist(), new[first].tolist(), strict=True))
    for visit in np.flatnonzero(plan.new_stable_page).tolist():
        group, node = int(groups[visit]), int(plan.target[visit])
        waiting = first_visit[node]
        if waiting == visit:
            waited = int(keys[contents.waiting_row[group]])
        else:
            waited = key[waiting]
            yield pos[waiting], partial(shape.insert_unstable, waited, digest[waiting])
        yield pos[visit], partial(shape.erase_unstable, waited)
        yield pos[visit], partial(shape.insert_stable, digest[visit])
