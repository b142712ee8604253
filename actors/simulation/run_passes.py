"""Run a scenario of ksmd: on Ray actors, or inline, all in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.keeper import CheckpointKeeper
from actors.checkpoint.recovery import recovered
from actors.checkpoint.state_files import DamagedError, SavedFile, write_state
from actors.run_options import ON_RAY, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.runs import Run, started
from cluster.checkpoint.encode import encode
from cluster.checkpoint.restore import decode, restoring
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.machine.pass_result import Event, PassDone, PassResult, PassStarted
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.spec.statistics import NODE_NAMES

#: The name of the results of the passes in a checkpoint.
_PASSES = "passes"
OnEvent = Callable[[Event], None]


def run_passes(
    spec: SimulationSpec,
    options: RunOptions = ON_RAY,
    *,
    on_event: OnEvent = lambda _event: None,
    snapshots: Mapping[str, CapturedPages] | None = None,
    pool: ActorPool | None = None,
    checkpoints: CheckpointKeeper | None = None,
) -> Iterator[PassResult]:
    """Run a scenario and yield the result of each pass; `options` do not change it.

    `snapshots` are the captured memories that the scenario names, by path. `on_event` is called when actors
    start and passes start and end. The engine `ray` takes the actors of `pool`, and leaves them there for
    the next run; by default it starts some of its own, and ends them. With `checkpoints`, the run goes on
    from the last one, whose passes it yields first, and writes more. If an actor dies, the run goes on from
    the last checkpoint, or else starts again, and yields no pass twice.

    Raises SimulationError if the scenario cannot be carried out; LostError, in a line that says what died and
    in which pass, after more than `options.max_failures` deaths and if Ray does not start or loses its head.
    """
    yielded = 0
    run = partial(_run, spec, options, on_event, snapshots or {}, pool, checkpoints)
    for result in recovered(run, checkpoints, options.max_failures, on_event, "pass"):
        if result.number > yielded:
            yielded = result.number
            yield result


def _run(
    spec: SimulationSpec,
    options: RunOptions,
    on_event: OnEvent,
    snapshots: Mapping[str, CapturedPages],
    pool: ActorPool | None,
    checkpoints: CheckpointKeeper | None,
    checkpoint: Checkpoint | None,
) -> Iterator[PassResult]:
    done = _passes_before(checkpoint, spec) if checkpoint else []
    yield from done
    with started(spec, options, on_event, snapshots, pool, checkpoint) as run:
        yield from _passes(run, spec, done, on_event, checkpoints)


def _passes(
    run: Run,
    spec: SimulationSpec,
    done: list[PassResult],
    on_event: OnEvent,
    checkpoints: CheckpointKeeper | None,
) -> Iterator[PassResult]:
    """Yield the results of the passes after `done`, and add them there."""
    total = spec.passes if spec.seconds is None and spec.tolerance is None else None
    while True:
        on_event(PassStarted(len(done) + 1, total))
        result = run.run_pass(ahead=checkpoints is None)
        on_event(PassDone(result))
        if result.is_last:
            yield replace(result, census=run.census())
            return
        done.append(result)
        if checkpoints and checkpoints.is_due(len(done)):
            checkpoints.write(len(done), partial(_save, run, spec, done), on_event)
        yield result


def _save(run: Run, spec: SimulationSpec, done: list[PassResult], folder: Path) -> list[SavedFile]:
    return write_state(folder, _PASSES, encode(done, {"spec": spec})) + run.save(folder)


def _passes_before(checkpoint: Checkpoint, spec: SimulationSpec) -> list[PassResult]:
    """Return the results of the passes before a checkpoint. Raises DamagedError or DecodeError."""
    done = decode(checkpoint.read(_PASSES), {"spec": spec})
    with restoring():
        results = [of for of in done if _is_result(of, spec.machine.nodes)] if isinstance(done, list) else []
        if [of.number for of in results] != list(range(1, checkpoint.steps + 1)):
            raise DamagedError(f"{checkpoint.folder}: the results of its passes are not those of a run")
    return results


def _is_result(of: object, nodes: int) -> bool:
    """Return whether this is the result of a pass of so many nodes, as far as reports need it."""
    return (
        isinstance(of, PassResult)
        and all(of.nodes[name].shape == (nodes,) and of.nodes[name].dtype == np.int64 for name in NODE_NAMES)
        and all(isinstance(number, int | float) for number in (of.simulated_seconds, of.wall_seconds))
        and all(
            isinstance(number, int) for number in (of.full_scans, of.pages_to_scan, of.windows, of.mail_bytes)
        )
        and all(isinstance(report, NodeReport) for report in of.compaction)
        and all(isinstance(relocation, RelocationResult) for relocation in of.relocated)
    )
