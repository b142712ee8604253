"""Run a scenario of ksmd: on Ray actors, or inline, all in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from actors.actor_pool import ActorPool, wait_until_ready
from actors.answers import answers
from actors.placement import node_blocks
from actors.run_options import ON_RAY, RunOptions
from actors.runtime import connected
from actors.timed import timed_pass
from actors.tuning.heap import Heap
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.machine.census import Census
from cluster.machine.fabric import InlineFabric
from cluster.machine.pass_result import Event, PassDone, PassResult, PassStarted
from cluster.machine.simulation import Simulation
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec


def run_passes(
    spec: SimulationSpec,
    options: RunOptions = ON_RAY,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
    snapshots: Mapping[str, CapturedPages] | None = None,
    pool: ActorPool | None = None,
) -> Iterator[PassResult]:
    """Run a scenario and yield the result of each pass; `options` do not change it.

    `snapshots` are the captured memories that the scenario names, by path. `on_event` is called when actors
    start and passes start and end. The engine `ray` takes the actors of `pool`, and leaves them there for
    the next run; by default it starts some of its own, and ends them.

    Raises SimulationError if the scenario cannot be carried out.
    """
    snapshots = snapshots or {}
    run = _ray(spec, options, on_event, snapshots, pool) if options.on_ray else _inline(spec, snapshots)
    with run as (results, census):
        for number in range(1, spec.passes + 1):
            on_event(PassStarted(number, spec.passes))
            result = next(results)
            on_event(PassDone(result))
            yield replace(result, census=census()) if number == spec.passes else result


class _Run(NamedTuple):
    """A run that has started: its passes, and what ksmd has made of each process after the last one."""

    passes: Iterator[PassResult]
    census: Callable[[], Census]


@contextmanager
def _inline(spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> Iterator[_Run]:
    fabric = InlineFabric(spec, snapshots, Heap())
    simulation = Simulation(fabric, spec, InlineCompactorPool(fabric.host.memories))
    yield _Run((timed_pass(simulation) for _ in range(spec.passes)), simulation.census)


@contextmanager
def _ray(
    spec: SimulationSpec,
    options: RunOptions,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, CapturedPages],
    kept: ActorPool | None,
) -> Iterator[_Run]:
    frames = spec.machine.nodes * spec.machine.frames_per_node
    with connected(options.address, frames), _actors(kept) as pool:
        import ray

        coordinator = pool.coordinator()
        nodes_of = node_blocks(spec.machine.nodes, options.nodes_per_actor)
        actors, machines = pool.actors(len(nodes_of)), pool.machines(len(nodes_of))
        captured = [ray.put(dict(snapshots))]
        started = coordinator.start.remote(
            spec, captured, nodes_of, actors, machines, options.migration_actors
        )
        wait_until_ready(actors, on_event)
        answers(started)
        yield _Run(_passes(coordinator, spec.passes), lambda: answers(coordinator.census.remote()))


@contextmanager
def _actors(kept: ActorPool | None) -> Iterator[ActorPool]:
    """Provide actors for a run: those kept from earlier runs, or some of its own.

    A run that does not reach its end ends the actors, too: they may still be at work.
    """
    pool = kept or ActorPool()
    try:
        yield pool
    except BaseException:
        pool.close()
        raise
    if kept is None:
        pool.close()


def _passes(coordinator: Any, passes: int) -> Iterator[PassResult]:
    """Yield the result of each pass. Each is requested before the last one ends, so it starts at once."""
    requested = coordinator.run_pass.remote()
    for left in reversed(range(passes)):
        due = requested
        if left:
            requested = coordinator.run_pass.remote()
        yield answers(due)
