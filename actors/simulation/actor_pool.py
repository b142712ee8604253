"""Node actors, and a coordinator, that serve one simulated machine after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.answers import ActorLostError
from actors.placement import node_blocks
from actors.simulation.ray_fabric import RayFabric
from actors.starting import machines, placements
from actors.watching.head import HEAD
from cluster.spec.scenario import SimulationSpec


class ActorPool:
    """Node actors, and a coordinator, that serve one simulated machine after another.

    Most scripts run faster than actors start.
    """

    def __init__(self, shift: float = 0.0) -> None:
        """Take where its actors begin on a cluster: `shift` is that of `machine_of_actors`."""
        self._shift = shift
        self._actors: list[Any] = []
        self._machines: list[str] = []
        #: The names of machines by Ray node and by address.
        self._names: dict[str, str] = {}
        self._coordinator: Any = None

    def actors(self, count: int) -> list[Any]:
        """Return the handles of `count` actors; new ones may still be starting."""
        if count > len(self._actors):
            self._start(count)
        return self._actors[:count]

    def _start(self, count: int) -> None:
        """Start actors, so that there are `count` of them."""
        import ray

        from actors.simulation.node_actor import NodeActor

        # num_cpus=0: a node waits for its turn most of the time, so there may be more nodes than cores.
        # The class is decorated here: with the decorator, its module takes longer to import in each actor.
        actor = ray.remote(num_cpus=0, max_task_retries=2)(NodeActor)
        known = machines()
        self._names |= {name: machine.name for machine in known for name in (machine.node, machine.address)}
        for placement in placements(count, known, self._shift)[len(self._actors) :]:
            self._actors.append(actor.options(scheduling_strategy=placement).remote())
            self._machines.append(placement.node_id)

    def coordinator(self) -> Any:
        """Return the handle of the coordinator; it may still be starting."""
        import ray

        from actors.simulation.coordinator_actor import CoordinatorActor

        if self._coordinator is None:
            # Ray may choose a machine that is dead.
            (placement,) = placements(1, machines(), self._shift)
            actor = ray.remote(num_cpus=0)(CoordinatorActor)
            self._coordinator = actor.options(scheduling_strategy=placement).remote()
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

    @contextmanager
    def naming(self, nodes_of: list[list[int]]) -> Iterator[None]:
        """Say in an ActorLostError from the block which actor was lost; `nodes_of` are the nodes of each."""
        try:
            yield
        except ActorLostError as error:
            raise self._named(error, nodes_of) from error

    def _named(self, error: ActorLostError, nodes_of: list[list[int]]) -> ActorLostError:
        machine = self._names.get(error.address, error.address)
        ids = [actor._actor_id.hex() for actor in self._actors]
        if error.actor in ids:
            index = ids.index(error.actor)
            return ActorLostError(
                error.reason,
                f"node actor of {_in_words(nodes_of[index])}",
                error.actor,
                self._names.get(self._machines[index], machine),
            )
        is_coordinator = self._coordinator is not None and error.actor == self._coordinator._actor_id.hex()
        return ActorLostError(
            error.reason, "coordinator" if is_coordinator else error.kind, error.actor, machine
        )

    def close(self) -> None:
        """End the actors; the next machine gets new ones."""
        import ray

        ended = [*self._actors, *([] if self._coordinator is None else [self._coordinator])]
        # Without its head, Ray would wait for it. The actors end with it.
        for actor in [] if HEAD.lost else ended:
            ray.kill(actor)
        self._actors, self._machines, self._coordinator = [], [], None


def _in_words(nodes: list[int]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {nodes[0]} to {nodes[-1]}"
