"""The two ways to run a scenario: `ray` (an actor a node) and `inline` (all in this process)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from actors.answers import answers
from actors.hosts import blocks, shares
from actors.ray_fabric import RayFabric
from actors.runtime import connected
from actors.timed import timed_pass
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.heap import Heap
from cluster.machine.fabric import InlineFabric
from cluster.machine.pass_result import ActorsStarting, Event, PassDone, PassResult, PassStarted
from cluster.machine.simulation import Simulation
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import SimulationSpec

ENGINES = ("ray", "inline")


def run_passes(
    spec: SimulationSpec,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
    snapshots: Mapping[str, CapturedPages] | None = None,
) -> Iterator[PassResult]:
    """Runs a scenario; one result a pass, the same whatever the engine and the spread over actors.

    `address` is that of a Ray cluster to join; without it the `ray` engine starts one and stops it again.
    There, `migration_actors` drive the compactors of a scenario that has some.
    `snapshots` are the captured memories that the scenario names, by path.

    Raises SimulationError if the scenario cannot be carried out.
    """
    snapshots = snapshots or {}
    if engine == "inline":
        simulation = _inline(spec, snapshots)
    elif engine == "ray":
        simulation = _ray(spec, address, nodes_per_actor, migration_actors, on_event, snapshots)
    else:
        raise SimulationError(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
    with simulation as results:
        for number in range(1, spec.passes + 1):
            on_event(PassStarted(number, spec.passes))
            result = next(results)
            on_event(PassDone(result))
            yield result


@contextmanager
def _inline(spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> Iterator[Iterator[PassResult]]:
    fabric = InlineFabric(spec, snapshots, Heap())
    compactor_pool = InlineCompactorPool(fabric.host.memories)
    simulation = Simulation(fabric, spec, compactor_pool)
    yield (timed_pass(simulation) for _ in range(spec.passes))


@contextmanager
def _ray(
    spec: SimulationSpec,
    address: str | None,
    nodes_per_actor: int,
    migration_actors: int,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, CapturedPages],
) -> Iterator[Iterator[PassResult]]:
    frames = spec.machine.nodes * spec.machine.frames_per_node
    with connected(address, frames), closing(ActorPool()) as pool:
        import ray

        from actors.coordinator import Coordinator

        coordinator: Any = ray.remote(num_cpus=0)(Coordinator).remote()
        try:
            hosts = blocks(spec.machine.nodes, nodes_per_actor)
            actors, machines = pool.actors(len(hosts)), pool.machines(len(hosts))
            started = coordinator.start.remote(spec, snapshots, hosts, actors, machines, migration_actors)
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
