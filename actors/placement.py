"""Which actor has which nodes, and where it runs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def blocks(nodes: int, per_actor: int) -> list[list[int]]:
    """Nodes 0 .. nodes-1 in runs of `per_actor`, the last one maybe shorter."""
    return [list(range(first, min(first + per_actor, nodes))) for first in range(0, nodes, per_actor)]


def shares(actors: int, cpus: Sequence[float]) -> list[int]:
    """For each actor the machine that it runs on: in blocks, as many on each as its share of all CPUs.

    A machine that offers no CPU gets none, unless no machine offers any.
    """
    weights = list(cpus) if sum(cpus) > 0 else [1.0] * len(cpus)
    total = sum(weights)
    ends = [sum(weights[: i + 1]) / total for i in range(len(weights))]
    return [next(i for i, end in enumerate(ends) if (actor + 0.5) / actors < end) for actor in range(actors)]


def group_of(actor: int) -> int:
    """Neighbours, mostly on one machine, who get one object together: each object costs Ray some time."""
    return actor // 8


def ranges(of: Sequence[int]) -> list[tuple[int, int]]:
    """Nodes low..high-1 of each actor, or group; `of[n]`, ascending, is that of node n."""
    return [(bisect_left(of, number), bisect_right(of, number)) for number in range(of[-1] + 1)]
