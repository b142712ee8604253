"""Runs that go on after the death of an actor, and from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from actors.answers import ActorLostError
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.keeper import CheckpointKeeper
from actors.checkpoint.state_files import DamagedError
from cluster.machine.pass_result import Event, RunRestarting

T = TypeVar("T")


def recovered(
    attempt: Callable[[Checkpoint | None], Iterator[T]],
    checkpoints: CheckpointKeeper | None,
    max_failures: int,
    on_event: Callable[[Event], None],
) -> Iterator[T]:
    """Yield what a run yields, begun from the last checkpoint or, without one, from its start.

    If an actor dies, the run begins so once more, and yields the same again. If a checkpoint is damaged, the
    one before it is the last. Raises ActorLostError after more than `max_failures` deaths, DamagedError if
    all checkpoints are damaged.
    """
    failures = 0
    while True:
        checkpoint = checkpoints.latest(on_event) if checkpoints else None
        try:
            yield from attempt(checkpoint)
            return
        except DamagedError as error:
            if checkpoints is None or checkpoint is None:
                raise
            checkpoints.pass_over(checkpoint, error)
        except ActorLostError as error:
            failures += 1
            if failures > max_failures:
                raise
            last = checkpoints.latest(on_event) if checkpoints else None
            on_event(RunRestarting(str(error), last.steps if last else 0))
