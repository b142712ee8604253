"""How a run was carried out, and its time on this host."""

from __future__ import annotations

import os
from dataclasses import dataclass

from actors.run_options import RunOptions


@dataclass(frozen=True, slots=True)
class Timing:
    """Facts that may differ between runs with equal results. Actor counts are None for the inline engine."""

    engine: str
    nodes_per_actor: int | None
    migration_actors: int | None
    wall_seconds: float
    start_seconds: float
    #: CPUs that this process may use; None if the run joined a Ray cluster.
    cores: int | None = None

    @classmethod
    def of(cls, options: RunOptions, wall_seconds: float, start_seconds: float) -> Timing:
        """Return the timing of a run with these options."""
        if not options.on_ray:
            return cls(options.engine, None, None, wall_seconds, start_seconds, cores())
        actors = options.nodes_per_actor, options.migration_actors
        own = cores() if options.cluster is None else None
        return cls(options.engine, *actors, wall_seconds, start_seconds, own)


def cores() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
