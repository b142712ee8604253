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
        if isinstance(error.cause, RayError):
            # It waited for an actor that died.
            raise _lost(error.cause) from error
        raise
    except RayError as error:
        raise _lost(error) from error


def _lost(error: Exception) -> ActorLostError:
    reason = str(error).partition("\n")[0]
    return ActorLostError(f"an actor died: {reason}; if memory was short, raise --nodes-per-actor")
