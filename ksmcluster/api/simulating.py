"""Running a simulation from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from actors.run_options import ON_RAY, RunOptions
from cluster.machine.pass_result import PassResult, PassStarted, RunStarting
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.content import PAGE_SIZE
from cluster.spec.scenario import Law, SimulationSpec
from ksmcluster.api.checkpoints import checkpoint_before_the_end, keeper
from ksmcluster.api.keywords import Keywords, check_address, check_unchanged, listening, taken
from ksmcluster.api.plugins import with_plugins
from ksmcluster.api.running import Progress, RunClock, check_memory, one_line
from ksmcluster.config import DEFAULT, Scenario, load, to_spec
from ksmcluster.config.memory import frames_needed, pages_mapped
from ksmcluster.report import text
from ksmcluster.results.identity import config_digest
from ksmcluster.results.result import Result
from ksmcluster.results.run_notes import run_notes
from ksmcluster.system import host_memory
from ksmcluster.system.errors import RunFailedError

if TYPE_CHECKING:
    from actors.simulation.actor_pool import ActorPool


def simulate(
    config: Scenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT,
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | bool | None = None,
    **changes: Unpack[Keywords],
) -> Result:
    """Simulate a scenario and return its result.

    The result depends on the scenario alone.

    Args:
        config: what `load` takes or returns, such as `load("default", Overrides(nodes=8))`.
        options: how the run is carried out.
        progress: called with each event of the run. True shows the progress, also in a notebook.
        changes: fields of `options`, and changes of the scenario, which are fields of `Overrides`:
            `simulate("tiny", engine="inline", nodes=4, settings={"ksm.pages_to_scan": 400})`.

    Raises:
        UserError: for errors that the user can fix. If this host has too little memory, it is raised before
            anything starts.
        RunFailedError: if more than `max_failures` actors or machines died, or Ray did not start. Its
            `result` has the finished passes.
    """
    options, overrides = taken(simulate, options, changes)
    check_address(options)
    if isinstance(config, Scenario):
        check_unchanged("simulate", overrides)
        scenario = config
    else:
        scenario = load(config, overrides)
    with listening(progress) as listener:
        return run(scenario, options, listener)


def run(
    scenario: Scenario,
    options: RunOptions,
    progress: Progress | None = None,
    pool: ActorPool | None = None,
) -> Result:
    """Simulate a scenario as `simulate` does; on Ray with the actors of a pool, if one is given."""
    spec, digest = with_plugins(to_spec(scenario)), config_digest(scenario)
    clock = RunClock(progress, lambda event: isinstance(event, PassStarted) and event.number == 1)

    from actors.simulation.run_passes import run_passes
    from ksmcluster.snapshot.load import count_rows, load_pages, notes, with_layouts

    paths = [path for process in spec.processes if (path := process.snapshot)]
    rows = count_rows(paths)
    if options.memory_check:
        host_memory.check(rows, rows * host_memory.LOADED_ROW, 0, "a snapshot of fewer processes or moments")
    snapshots = load_pages(paths)
    spec = with_layouts(spec, snapshots)
    _check_host(scenario, spec, snapshots, rows, options)
    checkpoints = keeper(scenario, options)
    clock.on_event(RunStarting())
    passes: list[PassResult] = []

    def result(*first_notes: str) -> Result:
        of_snapshots = notes(spec, snapshots, passes[-1].simulated_seconds)
        reading = (*first_notes, *scenario.notes, *of_snapshots, *run_notes(spec, passes))
        captured = [snapshots[kind.snapshot].processes if kind.snapshot else () for kind in spec.processes]
        return Result.of(scenario, passes, clock.timing(options), reading, captured, digest)

    try:
        with one_line(), checkpoint_before_the_end(options.checkpoint, clock.on_event) as on_event:
            # The passes taken before an error stay in the list.
            passes.extend(
                run_passes(
                    spec,
                    options,
                    on_event=on_event,
                    snapshots=snapshots,
                    pool=pool,
                    checkpoints=checkpoints,
                )
            )
    except RunFailedError as error:
        again = checkpoints is not None and checkpoints.latest(on_event) is not None
        how = f"; continue with `ksmcluster resume {options.checkpoint}`" if again else ""
        incomplete = f"the run is incomplete; it ended after {text.counted(len(passes), 'pass')}: {error}"
        raise RunFailedError(f"{error}{how}", result(incomplete) if passes else None) from error
    return result()


def _check_host(
    scenario: Scenario,
    spec: SimulationSpec,
    snapshots: Mapping[str, CapturedPages],
    rows: int,
    options: RunOptions,
) -> None:
    """Raise UserError if a run does not fit into this host, or if Ray's workers would not find our packages.

    `rows` is the number of rows of all snapshots.
    """
    from actors.runtime import check_working_directory

    captured = sum(
        process.count * snapshots[process.snapshot].pages_a_process
        for process in spec.processes
        if process.snapshot
    )
    frame = host_memory.PAGE + (PAGE_SIZE if spec.machine.content == "bytes" else 0)
    pages, frames = (of_regions(scenario) + captured for of_regions in (pages_mapped, frames_needed))
    size = frames * frame + (pages - frames) * host_memory.MAPPING
    size += rows * host_memory.KEPT_ROW if options.on_ray else 0
    size += (spec.passes or 0) * spec.machine.nodes * host_memory.RESULT_ROW
    regions = (region for process in spec.processes for region in process.regions)
    size += host_memory.ZIPF_CONTENT * max((r.distinct for r in regions if r.law is Law.ZIPF), default=0)
    check_memory(options, spec.machine.nodes, pages, size, "--pages-per-node")
    if options.on_ray:
        with one_line():
            check_working_directory()
