"""Runs that go on after the death of an actor, and from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from actors.answers import ActorLostError
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.keeper import CheckpointKeeper
from actors.checkpoint.state_files import DamagedError
from actors.runtime import CannotJoinError
from actors.watching.head import HeadLostError
from cluster.checkpoint.restore import DecodeError
from cluster.machine.pass_result import Event, RunRestarting
from cluster.spec.errors import LostError, SimulationError

T = TypeVar("T")


def recovered(
    attempt: Callable[[Checkpoint | None], Iterator[T]],
    checkpoints: CheckpointKeeper | None,
    max_failures: int,
    on_event: Callable[[Event], None],
    step: str = "",
) -> Iterator[T]:
    """Yield what a run yields, begun from the last checkpoint or, without one, from its start.

    If an actor dies, the run begins so once more, and yields the same again. If a checkpoint is damaged, the
    one before it is the last. `step` is the name of what is yielded, which a line about a death counts.

    Raises LostError, in a line that says what died and in which step, after more than `max_failures` deaths
    and if Ray does not start or loses its head; DamagedError if all checkpoints are damaged; SimulationError
    if one is as it was written, but not the state of such a run.
    """
    failures = 0
    while True:
        checkpoint = checkpoints.latest(on_event) if checkpoints else None
        done = 0
        try:
            for result in _begun(attempt, checkpoint):
                done += 1
                yield result
            return
        except DamagedError as error:
            if checkpoints is None or checkpoint is None:
                raise
            checkpoints.pass_over(checkpoint, error)
        except (LostError, CannotJoinError) as error:
            # A cluster that was there before the last death is not a wrong address.
            is_gone = failures > 0 and isinstance(error, CannotJoinError)
            said = "the head of the Ray cluster is lost" if is_gone else str(error)
            what = f"{said}, in {step} {done + 1}" if step else said
            if is_gone or isinstance(error, HeadLostError):
                raise LostError(what) from error
            if not isinstance(error, ActorLostError):
                raise  # Ray did not start
            failures += 1
            if failures > max_failures:
                raise LostError(f"{what}, as death {failures} of this run (--max-failures)") from error
            last = checkpoints.latest(on_event) if checkpoints else None
            on_event(RunRestarting(what, last.steps if last else 0))


def _begun(attempt: Callable[[Checkpoint | None], Iterator[T]], checkpoint: Checkpoint | None) -> Iterator[T]:
    """Yield what a run yields. Raises SimulationError if the checkpoint holds no state of such a run."""
    try:
        yield from attempt(checkpoint)
    except DecodeError as error:
        if checkpoint is None:
            raise
        raise SimulationError(
            f"{checkpoint.folder}: this checkpoint is not one that ksmcluster wrote ({error}); "
            "choose another directory"
        ) from error
