"""Simulating from Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.errors import SimulationError
from cluster.results import Event, PassStarted
from ksmcluster.config import DEFAULT, Scenario, load, to_spec
from ksmcluster.errors import UserError
from ksmcluster.results import Result, Timing


def simulate(
    config: Scenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    progress: Callable[[Event], None] | None = None,
) -> Result:
    """Simulate a scenario and return what came of it.

    `config` is what `load` takes, or has returned: `simulate(load("default", Overrides(nodes=8)))`.
    The engine `ray` runs an actor for each `nodes_per_actor` NUMA nodes, on a Ray that it starts and stops
    or on the cluster at `address`; `inline` runs all in this process. Both find the same. `progress` is told
    what goes on. Raises UserError for what the user can mend.
    """
    scenario = config if isinstance(config, Scenario) else load(config)
    spec = to_spec(scenario)
    start = time.perf_counter()
    began = start

    def on_event(event: Event) -> None:
        nonlocal began
        if isinstance(event, PassStarted) and event.number == 1:
            began = time.perf_counter()
        if progress:
            progress(event)

    from actors.engine import run_passes
    from ksmcluster.snapshot_pages import load_pages

    snapshots = {path: load_pages(path) for process in spec.processes if (path := process.snapshot)}
    try:
        passes = list(
            run_passes(
                spec,
                engine=engine,
                address=address,
                nodes_per_actor=nodes_per_actor,
                on_event=on_event,
                snapshots=snapshots,
            )
        )
    except SimulationError as error:
        raise UserError(str(error)) from error
    timing = Timing(
        engine=engine,
        nodes_per_actor=nodes_per_actor if engine == "ray" else None,
        wall_seconds=time.perf_counter() - start,
        start_seconds=began - start,
    )
    return Result.of(scenario, passes, timing)
