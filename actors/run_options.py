"""How a run is carried out: by which engine, on which Ray, by how many actors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypedDict

from cluster.spec.errors import SimulationError
from cluster.spec.limits import MOST_TIMEOUT

ENGINES = ("ray", "inline")
#: Seconds without a sign of life after which a process is taken for dead.
STALL_TIMEOUT = 60.0
#: Time between checkpoints.
CHECKPOINT_EVERY = "10m"
#: The least of each whole number, and of each number of seconds.
_LEAST = {"nodes_per_actor": 1, "migration_actors": 1, "max_failures": 0}
_LEAST_SECONDS = {"connect_timeout": 0.1, "stall_timeout": 10.0}
#: Ray sets it for what `ray job submit` runs.
_IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions`, as keyword arguments."""

    engine: str
    address: str | None
    nodes_per_actor: int
    migration_actors: int
    memory_check: bool
    connect_timeout: float
    checkpoint: str | None
    checkpoint_every: str
    max_failures: int
    stall_timeout: float


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run takes besides its scenario. The result does not depend on it.

    Args:
        engine: `ray` runs actors, one for each `nodes_per_actor` NUMA nodes; `inline` runs everything in this
            process.
        address: the Ray cluster to join. By default this is the cluster of the Ray job, if this runs inside
            one; otherwise Ray is started for the run and stopped after it. In a program that has called
            ray.init(), its cluster is taken, whatever the address.
        nodes_per_actor: NUMA nodes that share an actor.
        migration_actors: actors that drive the compactors, if the scenario has any.
        memory_check: refuse a run that cannot fit into the memory of this host. A run on another cluster is
            never refused.
        connect_timeout: seconds that the Ray cluster has to answer.
        checkpoint: directory to write checkpoints to. If it has some of this scenario, the run goes on from
            the last one.
        checkpoint_every: time between checkpoints, such as "90s", "10m" or "2h", or passes, such as "5p".
        max_failures: deaths of actors or machines that the run survives.
        stall_timeout: seconds, at least 10, after which a process of Ray that does nothing at all is taken
            for dead.

    Raises:
        SimulationError: if there is no such engine, if a number is out of range, if the address is empty, or
            if there is an interval of checkpoints but no directory.
    """

    engine: str = "ray"
    address: str | None = None
    nodes_per_actor: int = 1
    migration_actors: int = 4
    memory_check: bool = True
    connect_timeout: float = 30.0
    checkpoint: str | None = None
    checkpoint_every: str = CHECKPOINT_EVERY
    max_failures: int = 3
    stall_timeout: float = STALL_TIMEOUT

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise SimulationError(f"no engine {self.engine!r}; there are: {', '.join(ENGINES)}")
        self._check_numbers()
        if self.address == "":
            raise SimulationError(
                "address: it is empty; give HOST:PORT, or auto for a cluster of this machine"
            )
        if not isinstance(self.checkpoint_every, str):
            raise SimulationError(
                f'checkpoint_every: must be text, such as "5p", not {self.checkpoint_every}'
            )
        if self.checkpoint is None and self.checkpoint_every != CHECKPOINT_EVERY:
            raise SimulationError(
                "--checkpoint-every: without --checkpoint, there are no checkpoints; give both"
            )

    def _check_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise SimulationError(f"{name}: must be a whole number, at least {least}, not {value}")
        for name, seconds in _LEAST_SECONDS.items():
            value = getattr(self, name)
            if not isinstance(value, Real) or not seconds <= float(value) <= MOST_TIMEOUT:
                raise SimulationError(
                    f"{name}: must be from {seconds:g} to {MOST_TIMEOUT:,} seconds, not {value}"
                )

    @property
    def on_ray(self) -> bool:
        """Return whether Ray actors run the scenario."""
        return self.engine == "ray"

    @property
    def cluster(self) -> str | None:
        """Return the address of the Ray cluster to join, which inside a Ray job is the job's by default."""
        return self.address or (os.environ.get("RAY_ADDRESS") if _IN_JOB in os.environ else None)


#: The defaults: a Ray of its own, an actor for each node.
ON_RAY = RunOptions()
#: Everything in this process.
INLINE = RunOptions("inline")
