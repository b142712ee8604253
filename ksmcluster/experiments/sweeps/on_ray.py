"""The runs of a sweep on Ray, which starts once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from actors.placement import node_blocks
from ksmcluster.api import one_line
from ksmcluster.experiments.sweeps.plan import Task
from ksmcluster.experiments.sweeps.run_one import RunRecord, run_one
from ksmcluster.experiments.sweeps.workers import Cluster, run_side_by_side

#: Peak memory of a run: bytes for each frame of its machine, and for each process.
_FRAME, _PROCESS = 250, 100 << 20


def run_on_ray(tasks: Sequence[Task], jobs: int | None) -> Iterator[RunRecord]:
    """Yield the record of each run as soon as it is finished; `jobs` runs are active at a time.

    By default, as many are active as the cluster has cores and memory for. Runs of `simulate` reuse the
    actors of the previous run.
    """
    from actors.runtime import cluster_address, connected

    options = tasks[0].options
    frames = max(map(_frames, tasks))
    ray = connected(options.cluster, frames, options.connect_timeout, options.stall_timeout)
    with one_line(), ray:
        at_a_time = min(jobs or fitting(tasks), len(tasks))
        if at_a_time > 1:
            yield from run_side_by_side(tasks, at_a_time, Cluster(cluster_address(), options.connect_timeout))
        else:
            yield from _one_by_one(tasks)


def _one_by_one(tasks: Sequence[Task]) -> Iterator[RunRecord]:
    from actors.simulation.actor_pool import ActorPool

    with closing(ActorPool()) as pool:
        for task in tasks:
            yield run_one(task, pool)


def fitting(tasks: Sequence[Task]) -> int:
    """Return how many runs the cluster has cores and memory for, at least 1; the largest run counts."""
    from actors.runtime import cluster_resources

    actors = max(
        len(node_blocks(task.scenario.machine.nodes, task.options.nodes_per_actor)) for task in tasks
    )
    # Besides its actors, a run has a coordinator and a process that waits for it.
    need = max(map(_frames, tasks)) * _FRAME + (actors + 2) * _PROCESS
    cores, memory = cluster_resources()
    return max(1, min(cores // actors, memory // need))


def _frames(task: Task) -> int:
    return task.scenario.machine.nodes * task.scenario.machine.memory_per_node
