"""Where actors start on a cluster, and when they are ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from actors.answers import WAIT, answers, check_cluster
from actors.placement import machine_of_actors
from actors.watching.head import check_answers
from cluster.machine.pass_result import ActorsStarting, Event

#: Raylets that are asked at the same time, and the time that each has to answer, in seconds.
_AT_A_TIME = 64
_ANSWER_SECONDS = 5.0


class RayNode(NamedTuple):
    """A Ray node that is alive: its ID, its address, its name for people, and its CPUs."""

    node: str
    address: str
    name: str
    cpus: float


def machines() -> list[RayNode]:
    """Return the machines of the cluster whose raylets answer, in an order that stays.

    Ray itself learns only after a while that a machine is dead, and would start actors there until then.
    """
    import ray

    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        answering = [n for n, answers in zip(alive, threads.map(_answers, alive), strict=True) if answers]
    return sorted(
        RayNode(
            str(n["NodeID"]),
            str(n["NodeManagerAddress"]),
            f"{n['NodeManagerHostname']} ({n['NodeManagerAddress']})",
            float(n["Resources"].get("CPU", 0)),
        )
        for n in answering or alive
    )


def _answers(node: Mapping[str, Any]) -> bool:
    """Return whether a raylet answers."""
    try:
        check_answers(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", _ANSWER_SECONDS)
    except OSError:
        return False
    return True


def placements(actors: int, known: list[RayNode] | None = None, shift: float = 0.0) -> list[Any]:
    """Return a scheduling strategy for each actor. Ray's own, SPREAD, leaves some machines empty.

    `known` are the machines of the cluster, looked for by default; `shift` is that of `machine_of_actors`.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    of = machines() if known is None else known
    return [
        NodeAffinitySchedulingStrategy(of[i].node, soft=False)
        for i in machine_of_actors(actors, [machine.cpus for machine in of], shift)
    ]


def wait_until_ready(actors: list[Any], on_event: Callable[[Event], None]) -> None:
    """Wait until all actors have started; call `on_event` whenever one has."""
    import ray

    waiting = [actor.__ray_ready__.remote() for actor in actors]
    on_event(ActorsStarting(0, len(actors)))
    while waiting:
        done, waiting = ray.wait(waiting, timeout=WAIT)
        check_cluster()
        answers(done)
        if done:
            on_event(ActorsStarting(len(actors) - len(waiting), len(actors)))
