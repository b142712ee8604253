"""How many pages each node sends to each other one, so that they travel short distances."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import HUGE_SIZE, I64, Bool
from cluster.spec.topology import Distances


def flows(supply: I64, room: I64, distance: Distances, most: int | None = None) -> I64:
    """Return flows of pages from nodes with `supply` to nodes with `room`, nearest pairs first.

    int64[nodes], int64[nodes] -> int64[k, 3]: rows are (source, target, pages), at most `most` pages in all.
    Among targets at the same distance from a source, those with most room come first.
    """
    supply, room = supply.copy(), room.copy()
    left = int(supply.sum()) if most is None else most
    rows: list[I64] = []
    for reach in np.unique(distance).tolist():
        for source in np.flatnonzero(supply).tolist():
            targets = np.flatnonzero((distance[source] == reach) & (room > 0))
            targets = targets[targets != source]
            targets = targets[np.argsort(-room[targets], kind="stable")]
            upto = np.minimum(np.cumsum(room[targets]), min(int(supply[source]), left))
            pages = np.diff(upto, prepend=0)
            room[targets] -= pages
            supply[source] -= pages.sum()
            left -= int(pages.sum())
            sent = np.column_stack([np.full(len(targets), source), targets, pages])
            rows.append(sent[pages > 0])
    return np.concatenate([np.zeros((0, 3), np.int64), *rows])


def evened(used: I64) -> I64:
    """Return how many pages each node has when they are spread evenly. int64[nodes] -> int64[nodes].

    Where the total cannot be divided, nodes that have most pages now keep one more.
    """
    nodes, total = len(used), int(used.sum())
    goal = np.full(nodes, total // nodes)
    goal[np.argsort(-used, kind="stable")[: total % nodes]] += 1
    return goal


def transfers(
    kind: str, census: I64, chosen: Bool, distance: Distances, most: int | None, huge: I64 | None = None
) -> I64:
    """Return the flows that `kind`, "drain" or "even-out", of the chosen nodes needs: rows of `flows`.

    census int64[nodes, 3]: pages in use, movable pages, room for pages of others; chosen bool[nodes].
    huge int64[nodes, 2]: movable huge pages, room for huge pages; with it, the flows are those of huge pages.
    """
    used, movable, room = census.T
    leaving, coming = _leaving_and_coming(kind, used, room, chosen)
    if huge is None:
        return flows(np.minimum(leaving, movable), np.minimum(coming, room), distance, most)
    most = None if most is None else most // HUGE_SIZE
    supply, room = np.minimum(np.stack([leaving, coming]) // HUGE_SIZE, huge.T)
    return flows(supply, room, distance, most)


def _leaving_and_coming(kind: str, used: I64, room: I64, chosen: Bool) -> tuple[I64, I64]:
    """Return how many pages should leave each node, and come to it at most: int64[nodes] each."""
    if kind == "drain":
        return np.where(chosen, used, 0), np.where(chosen, 0, room)
    goal = np.zeros_like(used)
    # an offline node has neither pages nor room
    online = chosen & (used + room > 0)
    goal[online] = evened(used[online])
    return np.where(chosen, np.maximum(used - goal, 0), 0), np.maximum(goal - used, 0)


def matrix(rows: I64, nodes: int) -> I64:
    """Return rows of `flows` as a matrix of pages. int64[k, 3] -> int64[nodes, nodes], from row to column."""
    pages = np.zeros((nodes, nodes), np.int64)
    pages[rows[:, 0], rows[:, 1]] = rows[:, 2]
    return pages
