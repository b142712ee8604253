"""Waiting for actors: an error of the simulation comes out as itself, not as Ray's wrapping of it."""

from __future__ import annotations

from typing import Any

from cluster.spec.errors import SimulationError


def answers(refs: Any) -> Any:
    """`ray.get` of one reference or a list.

    Raises SimulationError or MemoryError if an actor did, SimulationError if one died.
    """
    import ray
    from ray.exceptions import ActorDiedError, RayTaskError

    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, SimulationError | MemoryError):
            raise error.cause from None
        raise
    except ActorDiedError as error:
        raise SimulationError(
            f"an actor died: {str(error).splitlines()[0]}; if memory was short, raise --nodes-per-actor"
        ) from error
