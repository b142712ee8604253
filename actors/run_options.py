"""How a run is carried out: by which engine, on which Ray, by how many actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from cluster.spec.errors import SimulationError

ENGINES = ("ray", "inline")


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions`, as keyword arguments."""

    engine: str
    address: str | None
    nodes_per_actor: int
    migration_actors: int
    memory_check: bool


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run takes besides its scenario. The result does not depend on it.

    engine: `ray` runs actors, `inline` runs everything in this process. address: the Ray cluster to join; by
    default, Ray is started for the run and stopped after it. nodes_per_actor: NUMA nodes that share an actor.
    migration_actors: actors that drive the compactors, if the scenario has any. memory_check: refuse a run
    that cannot fit into the memory of this host; a run with an `address` is never refused.

    Raises SimulationError if there is no such engine.
    """

    engine: str = "ray"
    address: str | None = None
    nodes_per_actor: int = 1
    migration_actors: int = 4
    memory_check: bool = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise SimulationError(f"no engine {self.engine!r}; there are: {', '.join(ENGINES)}")

    @property
    def on_ray(self) -> bool:
        """Return whether Ray actors run the scenario."""
        return self.engine == "ray"


#: The defaults: a Ray of its own, an actor for each node.
ON_RAY = RunOptions()
#: Everything in this process.
INLINE = RunOptions("inline")
