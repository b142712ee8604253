"""Wait for actors. An error of the simulation is raised as itself, not in Ray's wrapping."""

from __future__ import annotations

from typing import Any

from cluster.spec.errors import SimulationError


class ActorLostError(SimulationError):
    """An actor died, or is out of reach. Its state is gone."""


def answers(refs: Any) -> Any:
    """Return what `ray.get` of one reference or a list of them returns.

    Raises SimulationError or MemoryError if an actor did, ActorLostError if one died or is out of reach.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, SimulationError | MemoryError):
            raise error.cause from None
        raise
    except RayError as error:
        reason = str(error).partition("\n")[0]
        raise ActorLostError(
            f"an actor died: {reason}; if memory was short, raise --nodes-per-actor"
        ) from error
