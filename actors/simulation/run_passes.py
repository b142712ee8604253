"""Run a scenario of ksmd: on Ray actors, or inline, all in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from actors.answers import ActorLostError
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.keeper import CheckpointKeeper, passes_of
from actors.checkpoint.state_files import UnwritableError
from actors.run_options import ON_RAY, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.runs import Run, started
from actors.watching.head import HeadLostError
from cluster.machine.pass_result import (
    CheckpointFailed,
    CheckpointWritten,
    Event,
    PassDone,
    PassResult,
    PassStarted,
    RunRestarting,
)
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.errors import LostError
from cluster.spec.scenario import SimulationSpec

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
    yielded = failures = 0
    while True:
        checkpoint = checkpoints.latest() if checkpoints else None
        done = passes_of(checkpoint, spec) if checkpoint else []
        try:
            for result in _run(spec, options, on_event, snapshots or {}, pool, checkpoints, checkpoint, done):
                if result.number > yielded:
                    yielded = result.number
                    yield result
            return
        except HeadLostError as error:
            raise LostError(f"{error}, in pass {len(done) + 1}") from error
        except ActorLostError as error:
            what = f"{error}, in pass {len(done) + 1}"
            failures += 1
            if failures > options.max_failures:
                raise LostError(f"{what}, as death {failures} of this run (--max-failures)") from error
            last = checkpoints.latest() if checkpoints else None
            on_event(RunRestarting(what, last.passes if last else 0))


def _run(
    spec: SimulationSpec,
    options: RunOptions,
    on_event: OnEvent,
    snapshots: Mapping[str, CapturedPages],
    pool: ActorPool | None,
    checkpoints: CheckpointKeeper | None,
    checkpoint: Checkpoint | None,
    done: list[PassResult],
) -> Iterator[PassResult]:
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
            _write(checkpoints, run, spec, done, on_event)
        yield result


def _write(
    checkpoints: CheckpointKeeper, run: Run, spec: SimulationSpec, done: list[PassResult], on_event: OnEvent
) -> None:
    """Write a checkpoint. A run whose checkpoints cannot be written goes on without them."""
    start = time.perf_counter()
    try:
        size = checkpoints.write(done, spec, run.save)
    except UnwritableError as error:
        on_event(CheckpointFailed(str(error)))
    else:
        on_event(CheckpointWritten(len(done), size, time.perf_counter() - start))
