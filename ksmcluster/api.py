"""Simulating from Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from actors.placement import node_blocks
from actors.run_options import ON_RAY, RunKeywords, RunOptions
from cluster.machine.pass_result import ActorsStarting, Event, PassStarted, RunStarting
from cluster.spec.content import PAGE_SIZE
from cluster.spec.errors import SimulationError
from ksmcluster.config import DEFAULT, DEFAULT_COMPACTION, Overrides, Scenario, load, load_compaction, to_spec
from ksmcluster.config.memory import frames_needed, pages_mapped
from ksmcluster.config.overrides import ScenarioKeywords, check_keywords
from ksmcluster.results.identity import config_digest
from ksmcluster.results.result import Result
from ksmcluster.results.run_notes import run_notes
from ksmcluster.results.timing import Timing
from ksmcluster.system import host_memory
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from actors.actor_pool import ActorPool
    from ksmcluster.config.compaction import CompactionScenario
    from ksmcluster.results.compaction.compaction_result import CompactionResult

Progress = Callable[[Event], None]


class Keywords(RunKeywords, ScenarioKeywords, total=False):
    """What `simulate`, `compact` and `sweep` take as keyword arguments besides their own."""


def simulate(
    config: Scenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT,
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | bool | None = None,
    **changes: Unpack[Keywords],
) -> Result:
    """Simulate a scenario and return its result.

    `config` is what `load` takes or returns. Changes of the scenario, the fields of `Overrides`, can be given
    as keyword arguments: `simulate("default", nodes=8, settings={"ksm.pages_to_scan": 400})`. The result does
    not depend on `options`, whose fields can be given so, too:

    engine: `ray` (by default) runs an actor for each `nodes_per_actor` NUMA nodes, `inline` runs everything
        in this process.
    address: the Ray cluster to join; by default that of the Ray job, if this runs inside one, or else Ray is
        started for this run and stopped after it.
    nodes_per_actor: NUMA nodes that share an actor, by default 1.
    migration_actors: actors that drive the compactors of a table [migration], by default 4.
    connect_timeout: seconds that the cluster at `address` has to answer, by default 30.
    memory_check: False to run even if the memory of this host cannot suffice.

    `progress` is called with each event of the run; True shows how far it is, also in a notebook. Raises
    UserError for what the user can mend; before anything starts, if the memory of this host cannot suffice.
    """
    options, overrides = taken(simulate, options, changes)
    if isinstance(config, Scenario):
        _check_unchanged("simulate", overrides)
        scenario = config
    else:
        scenario = load(config, overrides)
    with _listener(progress) as listener:
        return run(scenario, options, listener)


def run(
    scenario: Scenario,
    options: RunOptions,
    progress: Progress | None = None,
    pool: ActorPool | None = None,
) -> Result:
    """Simulate a scenario as `simulate` does; on Ray with the actors of a pool, if one is given."""
    spec, digest = to_spec(scenario), config_digest(scenario)
    clock = _RunClock(progress, lambda event: isinstance(event, PassStarted) and event.number == 1)

    from actors.run_passes import run_passes
    from actors.runtime import check_working_directory
    from ksmcluster.snapshot.load import count_rows, load_pages, notes, with_layouts

    paths = [path for process in spec.processes if (path := process.snapshot)]
    rows = count_rows(paths)
    if options.memory_check:
        host_memory.check(rows, rows * host_memory.LOADED_ROW, 0, "a snapshot of fewer processes or moments")
    snapshots = load_pages(paths)
    spec = with_layouts(spec, snapshots)
    captured = sum(
        process.count * snapshots[process.snapshot].pages_a_process
        for process in spec.processes
        if process.snapshot
    )
    frame = host_memory.PAGE + (PAGE_SIZE if spec.machine.content == "bytes" else 0)
    pages, frames = (of_regions(scenario) + captured for of_regions in (pages_mapped, frames_needed))
    size = frames * frame + (pages - frames) * host_memory.MAPPING
    size += rows * host_memory.KEPT_ROW if options.on_ray else 0
    _check_memory(options, spec.machine.nodes, pages, size, "--pages-per-node")
    if options.on_ray:
        with one_line():
            check_working_directory()
    clock.on_event(RunStarting())
    with one_line():
        passes = list(run_passes(spec, options, on_event=clock.on_event, snapshots=snapshots, pool=pool))
    timing = clock.timing(options)
    reading = (
        *scenario.notes,
        *notes(spec, snapshots, passes[-1].simulated_seconds),
        *run_notes(spec, passes),
    )
    processes = [snapshots[kind.snapshot].processes if kind.snapshot else () for kind in spec.processes]
    return Result.of(scenario, passes, timing, reading, processes, digest)


def compact(
    config: CompactionScenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT_COMPACTION,
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | bool | None = None,
    **changes: Unpack[Keywords],
) -> CompactionResult:
    """Compact the memory of every node of a scenario, with pages that can move and without.

    `config` is what `load_compaction` takes or returns; `options`, keyword arguments and `progress` are those
    of `simulate`. With the engine `ray`, an actor has the memories of each `nodes_per_actor` nodes. Raises
    UserError as `simulate` does.
    """
    from actors.compaction.run_compaction import run_compaction
    from ksmcluster.config.compaction import CompactionScenario, to_compaction_spec
    from ksmcluster.results.compaction.compaction_result import CompactionResult

    options, overrides = taken(compact, options, changes)
    if isinstance(config, CompactionScenario):
        _check_unchanged("compact", overrides)
        scenario = config
    else:
        scenario = load_compaction(config, overrides)
    spec = to_compaction_spec(scenario)
    pages = spec.nodes * spec.pages_per_node
    size = pages * host_memory.COMPACTED_PAGE
    _check_memory(options, spec.nodes, pages, size, "machine.memory_per_node")
    with one_line(), _listener(progress) as listener:
        clock = _RunClock(
            listener, lambda event: isinstance(event, ActorsStarting) and event.done == event.total
        )
        reports = run_compaction(spec, options, on_event=clock.on_event)
    return CompactionResult.of(scenario, reports, clock.timing(options))


def taken(
    call: Callable[..., Any], options: RunOptions, changes: Mapping[str, Any]
) -> tuple[RunOptions, Overrides]:
    """Return the options of a run and the changes of its scenario, with those given as keyword arguments.

    Raises UserError for an argument that the call does not have.
    """
    known = ScenarioKeywords.__annotations__ | RunKeywords.__annotations__ | (call.__kwdefaults__ or {})
    check_keywords(call.__name__, changes, known)
    of_run = {name: value for name, value in changes.items() if name in RunKeywords.__annotations__}
    with one_line():
        options = replace(options, **of_run)
    return options, Overrides(**{name: value for name, value in changes.items() if name not in of_run})


def _check_unchanged(call: str, overrides: Overrides) -> None:
    """Raise UserError for changes of a scenario that has been checked already."""
    if overrides != Overrides():
        raise UserError(
            f"{call}: the scenario is loaded already; give its changes to `load`, as Overrides(...)"
        )


@contextmanager
def _listener(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Provide what to call with each event: nothing, what was given, or what shows it to a person."""
    if progress is not True:
        yield progress or None
        return
    from rich.console import Console

    from ksmcluster.report.progress import shown

    with shown(Console(stderr=True)) as listener:
        yield listener


class _RunClock:
    """Measures a run from now on, and its start until the first event that `is_started` accepts."""

    def __init__(self, progress: Progress | None, is_started: Callable[[Event], bool]) -> None:
        self._progress = progress
        self._is_started = is_started
        self._start = self._started = time.perf_counter()

    def on_event(self, event: Event) -> None:
        if self._is_started(event):
            self._started = time.perf_counter()
        if self._progress:
            self._progress(event)

    def timing(self, options: RunOptions) -> Timing:
        return Timing.of(options, time.perf_counter() - self._start, self._started - self._start)


def _check_memory(options: RunOptions, nodes: int, pages: int, size: int, less: str) -> None:
    """Raise UserError if pages of `size` bytes in all cannot fit into this host, unless that is not asked."""
    if options.memory_check and options.cluster is None:
        actors = len(node_blocks(nodes, options.nodes_per_actor)) if options.on_ray else 0
        host_memory.check(pages, size, actors, less)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what a simulation cannot do, also for want of memory, into a UserError."""
    try:
        yield
    except SimulationError as error:
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError("memory ran out: give fewer pages, or a Ray cluster with --address") from error
