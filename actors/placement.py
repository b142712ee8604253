"""Which actor has which NUMA nodes, and which machine it runs on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise


def node_blocks(nodes: int, per_actor: int) -> list[list[int]]:
    """Return the nodes of each actor: `per_actor` in a row, the last actor maybe fewer."""
    return [list(range(first, min(first + per_actor, nodes))) for first in range(0, nodes, per_actor)]


def machine_of_actors(actors: int, cpus: Sequence[float], shift: float = 0.0) -> list[int]:
    """Return the machine of each actor: neighbours together, as many on each as its share of all CPUs.

    `cpus` are those of each machine. A machine without CPUs gets no actor, unless none has any. The first
    actor is on the first machine, or `shift` of all CPUs further.
    """
    weights = list(cpus) if sum(cpus) > 0 else [1.0] * len(cpus)
    total = sum(weights)
    ends = [sum(weights[: i + 1]) / total for i in range(len(weights))]
    where = [((actor + 0.5) / actors + shift) % 1 for actor in range(actors)]
    return [next(i for i, end in enumerate(ends) if position < end) for position in where]


def groups_of(machines: Sequence[str]) -> list[int]:
    """Return the group of each actor, from the machine of each: neighbours on one machine are a group.

    A group gets one object for all its mail, as each object costs Ray time.
    """
    return list(accumulate((one != other for one, other in pairwise(machines)), initial=0))


def node_ranges(of: Sequence[int]) -> list[tuple[int, int]]:
    """Return the node range low..high-1 of each actor or group; `of[n]`, ascending, is that of node n."""
    return [(bisect_left(of, number), bisect_right(of, number)) for number in range(of[-1] + 1)]
