"""The two ways to run a scenario: `ray` (an actor a node) and `inline` (all in this process)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.answers import answers
from actors.hosts import blocks, shares
from actors.runtime import connected
from cluster.errors import SimulationError
from cluster.fabric import InlineFabric
from cluster.migration.machine import InlineCrew
from cluster.results import ActorsStarting, Event, PassDone, PassResult, PassStarted
from cluster.simulation import Simulation
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec

if TYPE_CHECKING:
    pass

ENGINES = ("ray", "inline")


def run_passes(
    spec: SimulationSpec,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
    snapshots: Mapping[str, SnapshotPages] | None = None,
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
    with simulation as run_pass:
        for number in range(1, spec.passes + 1):
            on_event(PassStarted(number, spec.passes))
            start = time.perf_counter()
            result = replace(run_pass(), wall_seconds=time.perf_counter() - start)
            on_event(PassDone(result))
            yield result


@contextmanager
def _inline(
    spec: SimulationSpec, snapshots: Mapping[str, SnapshotPages]
) -> Iterator[Callable[[], PassResult]]:
    fabric = InlineFabric(spec, snapshots)
    crew = InlineCrew(fabric.host.memories if spec.migration else {})
    yield Simulation(fabric, spec, crew).run_pass


@contextmanager
def _ray(
    spec: SimulationSpec,
    address: str | None,
    nodes_per_actor: int,
    migration_actors: int,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, SnapshotPages],
) -> Iterator[Callable[[], PassResult]]:
    with connected(address), node_actors(spec, nodes_per_actor, on_event, snapshots) as (hosts, actors):
        import ray

        from actors.coordinator import Coordinator

        coordinator = Coordinator.remote()  # type: ignore[attr-defined]
        try:
            answers(coordinator.start.remote(spec, hosts, actors, migration_actors))
            yield lambda: answers(coordinator.run_pass.remote())
        finally:
            ray.kill(coordinator)


@contextmanager
def node_actors(
    spec: SimulationSpec,
    nodes_per_actor: int,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, SnapshotPages],
) -> Iterator[tuple[list[list[int]], list[Any]]]:
    """The nodes of each actor, and the actors, ready and spread over the Ray cluster; gone afterwards."""
    with closing(ActorPool()) as pool:
        yield pool.take(spec, nodes_per_actor, on_event, snapshots)


class ActorPool:
    """Node actors that serve one machine after another; starting one takes longer than most scripts."""

    def __init__(self) -> None:
        self._actors: list[Any] = []

    def take(
        self,
        spec: SimulationSpec,
        nodes_per_actor: int,
        on_event: Callable[[Event], None] = lambda _event: None,
        snapshots: Mapping[str, SnapshotPages] | None = None,
    ) -> tuple[list[list[int]], list[Any]]:
        """The nodes of each actor, and the actors, with the empty nodes of a new machine."""
        import ray

        from actors.node_actor import NodeActor

        hosts = blocks(spec.machine.nodes, nodes_per_actor)
        for place in places(len(hosts))[len(self._actors) :]:
            self._actors.append(NodeActor.options(scheduling_strategy=place).remote())  # type: ignore[attr-defined]
        actors = self._actors[: len(hosts)]
        shared_spec, shared_snapshots = ray.put(spec), ray.put(dict(snapshots or {}))
        waiting = [
            actor.take.remote(host, shared_spec, shared_snapshots)
            for actor, host in zip(actors, hosts, strict=True)
        ]
        on_event(ActorsStarting(0, len(actors)))
        while waiting:
            done, waiting = ray.wait(waiting)
            answers(done)
            on_event(ActorsStarting(len(actors) - len(waiting), len(actors)))
        return hosts, actors

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
