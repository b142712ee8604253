"""Wait for actors. An error of the simulation is raised as itself, not in Ray's wrapping."""

from __future__ import annotations

import re
from typing import Any

from actors.watching.head import HEAD
from cluster.spec.errors import LostError, SimulationError

#: The longest wait for answers until the head of the cluster is checked, in seconds.
WAIT = 1.0
#: What Ray's classes of actors are called in messages.
_KINDS = {
    "NodeActor": "node actor",
    "CoordinatorActor": "coordinator",
    "MigrationActor": "migration actor",
    "MemoryActor": "memory actor",
}
#: What Ray's long texts say of a death, in this order, and what that means.
_REASONS = {
    "low on memory": "memory ran out",
    "node has died": "its machine died, or is out of reach",
    "node was": "its machine died, or is out of reach",
    "raylet": "its machine died, or is out of reach",
    "worker process has died": "its process was killed or crashed",
    "killed by": "its process was killed",
    "unavailable": "it does not answer",
    "owner": "its process was killed or crashed",
}


class ActorLostError(LostError):
    """An actor died, or is out of reach. Its state is gone, and a run can start again from a checkpoint."""

    def __init__(self, reason: str, kind: str = "actor", actor: str = "", address: str = "") -> None:
        """Take why and what died, in words, its ID, and the name or address of its machine, "" if unknown."""
        super().__init__(reason, kind, actor, address)
        self.reason = reason
        self.kind = kind
        self.actor = actor
        self.address = address

    def __str__(self) -> str:
        article = "an" if self.kind == "actor" else "the" if self.kind == "coordinator" else "a"
        return f"{article} {self.kind}{self.address and f' on {self.address}'} died: {self.reason}"


def answers(refs: Any) -> Any:
    """Return what `ray.get` of one reference or a list of them returns.

    Raises SimulationError or MemoryError if an actor did, ActorLostError if one died or is out of reach,
    HeadLostError if the head of the cluster is lost.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        return wait_for(refs)
    except RayTaskError as error:
        if isinstance(error.cause, SimulationError | MemoryError):
            raise error.cause from None
        if isinstance(error.cause, RayError):
            raise lost(error.cause) from error
        raise
    except RayError as error:
        raise lost(error) from error


def wait_for(refs: Any) -> Any:
    """Return what `ray.get` returns, and raise what it raises, or what `check_cluster` does."""
    import ray
    from ray.exceptions import GetTimeoutError

    while True:
        check_cluster()
        try:
            return ray.get(refs, timeout=WAIT)
        except GetTimeoutError:
            continue


def check_cluster() -> None:
    """Raise HeadLostError if the head of the cluster is lost, ActorLostError if all its machines are.

    Without the head, actors go on until Ray ends this process. Without machines, a new actor waits for ever.
    """
    HEAD.check()
    if HEAD.alone:
        raise ActorLostError("its machine died, or is out of reach")


def lost(error: Exception) -> ActorLostError:
    """Return in our words what an error of Ray says of a death."""
    text = str(error)
    found = dict(re.findall(r"^\t(class_name|ip): (\S+)$", text, re.MULTILINE))
    reason = next((meant for part, meant in _REASONS.items() if part in text), text.partition("\n")[0])
    return ActorLostError(
        reason,
        _KINDS.get(found.get("class_name", ""), "actor"),
        getattr(error, "actor_id", None) or "",
        found.get("ip", ""),
    )
