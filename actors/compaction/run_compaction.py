"""Run a scenario of `ksmcluster compact` on Ray actors, or in this process. The result is the same.

Migration actor (n + c) modulo their number drives compactor c of node n; actor t modulo their number drives
transfer t between nodes. In each superstep at most one of them works on a node, in the order of
`cluster.compaction.scenario.rounds.drive`; different nodes work at the same time. On a node they interleave:
a turn may end while pages are isolated or locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.compaction.ray_compactor_pool import RayCompactorPool
from actors.placement import node_blocks
from actors.run_options import ON_RAY, RunOptions
from actors.runtime import connected
from actors.starting import placements, wait_until_ready
from actors.tuning.heap import keep_free_memory
from cluster.compaction.scenario.memory_host import compact_inline
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.machine.pass_result import Event
from cluster.spec.compaction import CompactionSpec


def run_compaction(
    spec: CompactionSpec,
    options: RunOptions = ON_RAY,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> list[NodeReport]:
    """Run a scenario and return the report of each node; `options` do not change it.

    `on_event` is called when actors start. Raises SimulationError if the scenario cannot be carried out.
    """
    if not options.on_ray:
        keep_free_memory()
        return compact_inline(spec)
    ray = connected(options.cluster, timeout=options.connect_timeout)
    with ray, compactor_pool_on_ray(spec, options, on_event) as compactor_pool:
        drive(spec, range(spec.nodes), compactor_pool)
        return compactor_pool.finish()


@contextmanager
def compactor_pool_on_ray(
    spec: CompactionSpec,
    options: RunOptions,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Iterator[RayCompactorPool]:
    """Start memory actors and a pool of migration actors; end them when the context is left."""
    import ray

    from actors.compaction.memory_actor import MemoryActor

    nodes_of = node_blocks(spec.nodes, options.nodes_per_actor)
    owners = [
        MemoryActor.options(scheduling_strategy=placement).remote(nodes, spec)  # type: ignore[attr-defined]
        for nodes, placement in zip(nodes_of, placements(len(nodes_of)), strict=True)
    ]
    compactor_pool = RayCompactorPool(nodes_of, owners, options.migration_actors)
    try:
        wait_until_ready(owners, on_event)
        yield compactor_pool
    finally:
        compactor_pool.close()
        for owner in owners:
            ray.kill(owner)
