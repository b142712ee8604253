"""A compaction scenario on Ray actors, or in this process; the result is the same.

Compactor c of node n is driven by migration actor (n + c) modulo their number; transfer t between nodes, by
actor t modulo their number. In each superstep at most one of them is at work on a node, in the order that
`cluster.compaction.scenario.rounds.drive` says; different nodes work at the same time. Within a node
they interleave: each stops in the middle of whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.compactor_pool import RayCompactorPool
from actors.engine import ENGINES, places, wait_for
from actors.hosts import blocks
from actors.runtime import connected
from cluster.compaction.scenario.memory_host import compact_inline
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.heap import keep_free_memory
from cluster.machine.pass_result import Event
from cluster.spec.compaction import CompactionSpec
from cluster.spec.errors import SimulationError


def run_compaction(
    spec: CompactionSpec,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> list[NodeReport]:
    """What becomes of each node, whatever the engine and the number of actors.

    Raises SimulationError if the scenario cannot be carried out.
    """
    if engine == "inline":
        keep_free_memory()
        return compact_inline(spec)
    if engine != "ray":
        raise SimulationError(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
    with connected(address), pool_on_ray(spec, nodes_per_actor, migration_actors, on_event) as compactor_pool:
        drive(spec, range(spec.nodes), compactor_pool)
        return compactor_pool.finish()


@contextmanager
def pool_on_ray(
    spec: CompactionSpec,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Iterator[RayCompactorPool]:
    """Start owners and a pool of migration actors; end them when the context is left."""
    import ray

    from actors.migration_actor import MemoryActor

    hosts = blocks(spec.nodes, nodes_per_actor)
    owners = [
        MemoryActor.options(scheduling_strategy=place).remote(host, spec)  # type: ignore[attr-defined]
        for host, place in zip(hosts, places(len(hosts)), strict=True)
    ]
    compactor_pool = RayCompactorPool(hosts, owners, migration_actors)
    try:
        wait_for(owners, on_event)
        yield compactor_pool
    finally:
        compactor_pool.close()
        for owner in owners:
            ray.kill(owner)
