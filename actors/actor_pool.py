"""Start Ray actors on the machines of a cluster, and wait until they are ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.answers import answers
from actors.placement import machine_of_actors, node_blocks
from actors.ray_fabric import RayFabric
from cluster.machine.pass_result import ActorsStarting, Event
from cluster.spec.scenario import SimulationSpec


class ActorPool:
    """Node actors, and a coordinator, that serve one simulated machine after another.

    Most scripts run faster than actors start.
    """

    def __init__(self) -> None:
        self._actors: list[Any] = []
        self._machines: list[str] = []
        self._coordinator: Any = None

    def actors(self, count: int) -> list[Any]:
        """Return the handles of `count` actors; new ones may still be starting."""
        import ray

        from actors.node_actor import NodeActor

        # num_cpus=0: a node waits for its turn most of the time, so there may be more nodes than cores.
        # The class is decorated here: with the decorator, its module takes longer to import in each actor.
        actor = ray.remote(num_cpus=0, max_task_retries=2)(NodeActor)
        for placement in placements(count)[len(self._actors) :]:
            self._actors.append(actor.options(scheduling_strategy=placement).remote())
            self._machines.append(placement.node_id)
        return self._actors[:count]

    def coordinator(self) -> Any:
        """Return the handle of the coordinator; it may still be starting."""
        import ray

        from actors.coordinator_actor import CoordinatorActor

        if self._coordinator is None:
            self._coordinator = ray.remote(num_cpus=0)(CoordinatorActor).remote()
        return self._coordinator

    def machines(self, count: int) -> list[str]:
        """Return the Ray nodes that the first `count` actors are on."""
        return self._machines[:count]

    def fabric(self, spec: SimulationSpec, nodes_per_actor: int) -> RayFabric:
        """Give the actors the empty nodes of a new machine; return the fabric that reaches them."""
        nodes_of = node_blocks(spec.machine.nodes, nodes_per_actor)
        fabric = RayFabric(nodes_of, self.actors(len(nodes_of)), self.machines(len(nodes_of)))
        fabric.take(spec, {})
        return fabric

    def close(self) -> None:
        """End the actors; the next machine gets new ones."""
        import ray

        if self._coordinator is not None:
            ray.kill(self._coordinator)
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._machines, self._coordinator = [], [], None


def placements(actors: int) -> list[Any]:
    """Return a scheduling strategy for each actor. Ray's own, SPREAD, leaves some machines empty."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    machines = sorted(alive, key=lambda n: str(n["NodeID"]))
    cpus = [float(n["Resources"].get("CPU", 0)) for n in machines]
    return [
        NodeAffinitySchedulingStrategy(machines[i]["NodeID"], soft=False)
        for i in machine_of_actors(actors, cpus)
    ]


def wait_until_ready(actors: list[Any], on_event: Callable[[Event], None]) -> None:
    """Wait until all actors have started; call `on_event` whenever one has."""
    import ray

    waiting = [actor.__ray_ready__.remote() for actor in actors]
    on_event(ActorsStarting(0, len(actors)))
    while waiting:
        done, waiting = ray.wait(waiting)
        answers(done)
        on_event(ActorsStarting(len(actors) - len(waiting), len(actors)))
