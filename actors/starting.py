"""Where actors start on a cluster, and when they are ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.answers import answers
from actors.placement import machine_of_actors
from cluster.machine.pass_result import ActorsStarting, Event


def placements(actors: int, shift: float = 0.0) -> list[Any]:
    """Return a scheduling strategy for each actor. Ray's own, SPREAD, leaves some machines empty.

    `shift` is that of `machine_of_actors`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    machines = sorted(alive, key=lambda n: str(n["NodeID"]))
    cpus = [float(n["Resources"].get("CPU", 0)) for n in machines]
    return [
        NodeAffinitySchedulingStrategy(machines[i]["NodeID"], soft=False)
        for i in machine_of_actors(actors, cpus, shift)
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
