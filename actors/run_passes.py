"""The two ways to run a scenario: `ray` (an actor a node) and `inline` (all in this process)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from actors.answers import answers
from actors.placement import blocks, shares
from actors.ray_fabric import RayFabric
from actors.run_options import ON_RAY, RunOptions
from actors.runtime import connected
from actors.timed import timed_pass
from actors.tuning.heap import Heap
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.machine.fabric import InlineFabric
from cluster.machine.pass_result import ActorsStarting, Event, PassDone, PassResult, PassStarted
from cluster.machine.simulation import Simulation
from cluster.spec.scenario import SimulationSpec
from cluster.spec.snapshot_pages import SnapshotPages


def run_passes(
    spec: SimulationSpec,
    options: RunOptions = ON_RAY,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
    snapshots: Mapping[str, SnapshotPages] | None = None,
) -> Iterator[PassResult]:
    """Run a scenario and yield the result of each pass; `options` do not change it.

    `snapshots` are the captured memories that the scenario names, by path. `on_event` is called when actors
    start and passes start and end.

    Raises SimulationError if the scenario cannot be carried out.
    """
    snapshots = snapshots or {}
    run = _ray(spec, options, on_event, snapshots) if options.on_ray else _inline(spec, snapshots)
    with run as results:
        for number in range(1, spec.passes + 1):
            on_event(PassStarted(number, spec.passes))
            result = next(results)
            on_event(PassDone(result))
            yield result


@contextmanager
def _inline(spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]) -> Iterator[Iterator[PassResult]]:
    fabric = InlineFabric(spec, snapshots, Heap())
    compactor_pool = InlineCompactorPool(fabric.host.memories)
    simulation = Simulation(fabric, spec, compactor_pool)
    yield (timed_pass(simulation) for _ in range(spec.passes))


@contextmanager
def _ray(
    spec: SimulationSpec,
    options: RunOptions,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, SnapshotPages],
) -> Iterator[Iterator[PassResult]]:
    frames = spec.machine.nodes * spec.machine.frames_per_node
    with connected(options.address, frames), closing(ActorPool()) as pool:
        import ray

        from actors.coordinator_actor import CoordinatorActor

        coordinator: Any = ray.remote(num_cpus=0)(CoordinatorActor).remote()
        try:
            hosts = blocks(spec.machine.nodes, options.nodes_per_actor)
            actors, machines = pool.actors(len(hosts)), pool.machines(len(hosts))
            started = coordinator.start.remote(
                spec, snapshots, hosts, actors, machines, options.migration_actors
            )
            wait_for(actors, on_event)
            answers(started)
            yield _passes(coordinator, spec.passes)
        finally:
            ray.kill(coordinator)


def _passes(coordinator: Any, passes: int) -> Iterator[PassResult]:
    """Their results. The coordinator is asked for the next pass before one is over, and goes on at once."""
    asked = coordinator.run_pass.remote()
    for left in reversed(range(passes)):
        due = asked
        if left:
            asked = coordinator.run_pass.remote()
        yield answers(due)


def wait_for(actors: list[Any], on_event: Callable[[Event], None]) -> None:
    """Tells how many actors are there, until all are."""
    import ray

    waiting = [actor.__ray_ready__.remote() for actor in actors]
    on_event(ActorsStarting(0, len(actors)))
    while waiting:
        done, waiting = ray.wait(waiting)
        answers(done)
        on_event(ActorsStarting(len(actors) - len(waiting), len(actors)))


class ActorPool:
    """Node actors that serve one machine after another; starting one takes longer than most scripts."""

    def __init__(self) -> None:
        self._actors: list[Any] = []
        self._machines: list[str] = []

    def actors(self, count: int) -> list[Any]:
        """So many actors; new ones may still be starting."""
        import ray

        from actors.node_actor import NodeActor

        # num_cpus=0: a node waits for its turn most of the time, so there may be more nodes than cores.
        # The class gets its decoration here: with it, its module would take longer to import in each actor.
        actor = ray.remote(num_cpus=0, max_task_retries=2)(NodeActor)
        for place in places(count)[len(self._actors) :]:
            self._actors.append(actor.options(scheduling_strategy=place).remote())
            self._machines.append(place.node_id)
        return self._actors[:count]

    def machines(self, count: int) -> list[str]:
        """Which machine each of the first so many actors is on."""
        return self._machines[:count]

    def fabric(self, spec: SimulationSpec, nodes_per_actor: int) -> RayFabric:
        """The way to the empty nodes of a new machine."""
        hosts = blocks(spec.machine.nodes, nodes_per_actor)
        fabric = RayFabric(hosts, self.actors(len(hosts)), self.machines(len(hosts)))
        fabric.take(spec, {})
        return fabric

    def close(self) -> None:
        """Ends the actors."""
        import ray

        for actor in self._actors:
            ray.kill(actor)


def places(actors: int) -> list[Any]:
    """Where each actor is to run; Ray's own SPREAD leaves machines out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    machines = sorted(alive, key=lambda n: str(n["NodeID"]))
    cpus = [float(n["Resources"].get("CPU", 0)) for n in machines]
    return [NodeAffinitySchedulingStrategy(machines[i]["NodeID"], soft=False) for i in shares(actors, cpus)]
