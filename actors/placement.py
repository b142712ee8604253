"""Which actor has which NUMA nodes, and which machine it runs on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


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


def node_ranges(actor_of: Sequence[int]) -> list[tuple[int, int]]:
    """Return the node range low..high-1 of each actor; `actor_of[n]`, ascending, is that of node n."""
    return [(bisect_left(actor_of, a), bisect_right(actor_of, a)) for a in range(actor_of[-1] + 1)]
