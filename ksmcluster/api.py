"""Simulating from Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.hosts import blocks
from cluster.machine.pass_result import ActorsStarting, Event, PassStarted
from cluster.spec.content import PAGE_SIZE
from cluster.spec.errors import SimulationError
from ksmcluster import host_memory
from ksmcluster.config import DEFAULT, DEFAULT_COMPACTION, Scenario, load, load_compaction, to_spec
from ksmcluster.config.memory import pages_mapped
from ksmcluster.errors import UserError
from ksmcluster.results.result import Result, Timing

if TYPE_CHECKING:
    from ksmcluster.config.compaction import CompactionScenario
    from ksmcluster.results.compaction_result import CompactionResult


def simulate(
    config: Scenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    memory_check: bool = True,
    progress: Callable[[Event], None] | None = None,
) -> Result:
    """Simulate a scenario and return what came of it.

    `config` is what `load` takes, or has returned: `simulate(load("default", Overrides(nodes=8)))`.
    The engine `ray` runs an actor for each `nodes_per_actor` NUMA nodes, on a Ray that it starts and stops
    or on the cluster at `address`, and `migration_actors` for compaction, if the scenario has a table
    [migration]; `inline` runs all in this process. Both find the same. `progress` is told what goes on.
    Raises UserError for what the user can mend; that the memory of this host cannot suffice, before anything
    starts, unless there is an `address`, or no `memory_check`.
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
    from ksmcluster.capture.load import load_pages, notes

    snapshots = load_pages(path for process in spec.processes if (path := process.snapshot))
    if memory_check and address is None:
        pages = pages_mapped(scenario) + sum(
            process.count * snapshots[process.snapshot].pages_a_process
            for process in spec.processes
            if process.snapshot
        )
        size = host_memory.PAGE + (PAGE_SIZE if spec.machine.content == "bytes" else 0)
        host_memory.check(
            pages, size, _actors(engine, spec.machine.nodes, nodes_per_actor), "--pages-per-node"
        )
    with _one_line():
        passes = list(
            run_passes(
                spec,
                engine=engine,
                address=address,
                nodes_per_actor=nodes_per_actor,
                migration_actors=migration_actors,
                on_event=on_event,
                snapshots=snapshots,
            )
        )
    timing = Timing(
        engine=engine,
        nodes_per_actor=nodes_per_actor if engine == "ray" else None,
        wall_seconds=time.perf_counter() - start,
        start_seconds=began - start,
        migration_actors=migration_actors if engine == "ray" else None,
    )
    reading = tuple(notes(spec, snapshots, passes[-1].simulated_seconds))
    return Result.of(scenario, passes, timing, reading)


def compact(
    config: CompactionScenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT_COMPACTION,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    memory_check: bool = True,
    progress: Callable[[Event], None] | None = None,
) -> CompactionResult:
    """Compact the memory of every node of a scenario, with pages that can move and without.

    `config` is what `load_compaction` takes, or has returned. The engine `ray` has an actor for the memories
    of each `nodes_per_actor` nodes, and `migration_actors` that drive the compactors; `inline` runs all in
    this process. Both find the same. Raises UserError for what the user can mend; that the memory of this
    host cannot suffice, before anything starts, unless there is an `address`, or no `memory_check`.
    """
    from actors.compaction import run_compaction
    from ksmcluster.config.compaction import CompactionScenario, to_compaction_spec
    from ksmcluster.results.compaction_result import CompactionResult, CompactionTiming

    scenario = config if isinstance(config, CompactionScenario) else load_compaction(config)
    start = began = time.perf_counter()

    def on_event(event: Event) -> None:
        nonlocal began
        if isinstance(event, ActorsStarting) and event.done == event.total:
            began = time.perf_counter()
        if progress:
            progress(event)

    spec = to_compaction_spec(scenario)
    if memory_check and address is None:
        actors = _actors(engine, spec.nodes, nodes_per_actor)
        pages = spec.nodes * spec.pages_per_node
        host_memory.check(pages, host_memory.COMPACTED_PAGE, actors, "machine.memory_per_node")
    with _one_line():
        reports = run_compaction(
            spec,
            engine=engine,
            address=address,
            nodes_per_actor=nodes_per_actor,
            migration_actors=migration_actors,
            on_event=on_event,
        )
    on_ray = engine == "ray"
    timing = CompactionTiming(
        engine=engine,
        nodes_per_actor=nodes_per_actor if on_ray else None,
        migration_actors=migration_actors if on_ray else None,
        wall_seconds=time.perf_counter() - start,
        start_seconds=began - start,
    )
    return CompactionResult(scenario, tuple(reports), timing)


def _actors(engine: str, nodes: int, nodes_per_actor: int) -> int:
    """Actors that have the nodes; none if all is in this process."""
    return len(blocks(nodes, nodes_per_actor)) if engine == "ray" else 0


@contextmanager
def _one_line() -> Iterator[None]:
    """UserError for what a simulation cannot do, also for want of memory."""
    try:
        yield
    except SimulationError as error:
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError("memory ran out: give fewer pages, or a Ray cluster with --address") from error
