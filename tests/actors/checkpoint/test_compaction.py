"""A compaction that goes on from a checkpoint, on whatever engine, ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.compaction.run_compaction import run_compaction
from actors.run_options import INLINE, RunOptions
from cluster.arrays.words import I64, Bool
from cluster.compaction.drivers.base import PageDriver
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode
from cluster.machine.pass_result import CheckpointFailed, CheckpointWritten, Event, RunRestarting
from cluster.spec.compaction import CompactionSpec, DriverSpec
from cluster.spec.errors import LostError
from tests.actors.checkpoint.test_resumed import keeper
from tests.actors.test_compaction import MOVING, SPEC, STARTS
from tests.actors.test_killed import processes

FAULTY = DriverSpec(
    "faulty",
    "faulty",
    0.2,
    0.3,
    (("refuse", 0.1), ("again", 0.3), ("fail", 0.1), ("no_memory", 0.001), ("release", 0.01)),
)
SPECS = {
    "moving": MOVING,
    "during": replace(MOVING, relocations=tuple(replace(r, when="during") for r in MOVING.relocations)),
    "faulty": replace(SPEC, drivers=(SPEC.drivers[0], FAULTY)),
    "direct": replace(SPEC, trigger="direct", order=4, attempts=40),
    "proactive": replace(SPEC, trigger="proactive", proactiveness=60),
    "start": replace(MOVING, start=STARTS),
    "old": replace(SPEC, kernel="4.8", mode="sync-light", batch=32, turn=200),
}


class StoppedError(Exception):
    """The run is killed here."""


@dataclass
class Call:
    """A call that a driver remembers."""

    pages: I64


class Moody(PageDriver):
    """A user's driver with a state: it refuses at random, and seldom after many calls."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.random = np.random.default_rng(3)
        self.calls: list[Call] = []
        self.decide: Callable[[I64], Bool] = self._refuse

    def may_isolate(self, pages: I64, mode: IsolateMode) -> Bool:
        self.calls.append(Call(pages[:1]))
        if len(self.calls) == 20:
            self.decide = self._grant
        return self.decide(pages)

    def _refuse(self, pages: I64) -> Bool:
        return self.random.random(len(pages)) < 0.5

    def _grant(self, pages: I64) -> Bool:
        chance = 0.9 + self.calls[0].pages.sum() * 1e-9
        granted: Bool = self.random.random(len(pages)) < chance
        return granted


class Locked(PageDriver):
    """A user's driver with a state that no checkpoint can hold."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.lock: Any = Lock()


def of_user(driver: type[PageDriver]) -> CompactionSpec:
    kind = f"{driver.__module__}:{driver.__name__}"
    return replace(SPEC, drivers=(SPEC.drivers[0], DriverSpec("user", kind, 0.2, 0.3)))


def stopped(spec: CompactionSpec, options: RunOptions, checkpoints: CheckpointKeeper, after: int) -> None:
    """Run a scenario up to the checkpoint after so many rounds."""

    def on_event(event: Event) -> None:
        if isinstance(event, CheckpointWritten) and event.steps == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_compaction(spec, options, on_event=on_event, checkpoints=checkpoints)


@pytest.mark.parametrize("spec", [*SPECS.values(), of_user(Moody)], ids=[*SPECS, "user"])
def test_a_compaction_goes_on_from_any_round(tmp_path: Path, spec: CompactionSpec) -> None:
    """It is interrupted again and again, after each third round."""
    undisturbed = repr(run_compaction(spec, INLINE))
    rounds: list[Event] = []
    every = CheckpointKeeper(tmp_path, {}, Interval(steps=1000))
    assert repr(run_compaction(spec, INLINE, on_event=rounds.append, checkpoints=every)) == undisturbed
    assert rounds == []
    for after in range(3, 200, 3):
        checkpoints = CheckpointKeeper(tmp_path, {}, Interval(steps=3))
        try:
            stopped(spec, INLINE, checkpoints, after)
        except pytest.fail.Exception:
            break
    assert after > 9
    assert repr(run_compaction(spec, INLINE, checkpoints=keeper(tmp_path))) == undisturbed


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 0), (1, 3)])
def test_a_compaction_goes_on_with_other_actors(
    ray_cluster: str, tmp_path: Path, first: int, then: int
) -> None:
    """`first` and `then` are nodes of an actor; 0 is the inline engine."""
    before, after = (
        RunOptions(address=ray_cluster, nodes_per_actor=packed, migration_actors=packed) if packed else INLINE
        for packed in (first, then)
    )
    stopped(MOVING, before, keeper(tmp_path), 12)
    written: list[Event] = []
    made = run_compaction(MOVING, after, on_event=written.append, checkpoints=keeper(tmp_path))
    assert repr(made) == repr(run_compaction(MOVING, INLINE))
    # The rounds before the checkpoint are not run again.
    assert next(event.steps for event in written if isinstance(event, CheckpointWritten)) == 14


@pytest.mark.parametrize("kept", [True, False])
def test_a_compaction_survives_the_death_of_a_memory_actor(
    ray_cluster: str, tmp_path: Path, kept: bool
) -> None:
    restarted: list[RunRestarting] = []

    def on_event(event: Event) -> None:
        if isinstance(event, CheckpointWritten) and event.steps == 8 and not restarted:
            if not kept:
                (tmp_path / "step-000006").rename(tmp_path / "earlier")
                (tmp_path / "step-000008").rename(tmp_path / "last")
            os.kill(processes("MemoryActor")[-1], signal.SIGKILL)
        if isinstance(event, RunRestarting):
            restarted.append(event)

    options = RunOptions(address=ray_cluster, nodes_per_actor=2)
    made = run_compaction(MOVING, options, on_event=on_event, checkpoints=keeper(tmp_path))
    assert repr(made) == repr(run_compaction(MOVING, INLINE))
    assert [event.steps for event in restarted] == [8 if kept else 0]
    assert all(event.reason.endswith("died: its process was killed or crashed") for event in restarted)


def test_too_many_deaths_end_a_compaction(ray_cluster: str, tmp_path: Path) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, CheckpointWritten):
            os.kill(processes("MemoryActor")[0], signal.SIGKILL)

    options = RunOptions(address=ray_cluster, max_failures=1)
    with pytest.raises(LostError, match=r"a memory actor on .* died: .*, as death 2 of this run"):
        run_compaction(MOVING, options, on_event=on_event, checkpoints=keeper(tmp_path))


@pytest.mark.parametrize("packed", [0, 2])
def test_a_driver_that_no_checkpoint_can_hold_is_told_once(
    ray_cluster: str, tmp_path: Path, packed: int
) -> None:
    spec = of_user(Locked)
    events: list[Event] = []
    options = RunOptions(address=ray_cluster, nodes_per_actor=packed) if packed else INLINE
    made = run_compaction(spec, options, on_event=events.append, checkpoints=keeper(tmp_path))
    assert repr(made) == repr(run_compaction(spec, INLINE))
    [why] = [event.reason for event in events if isinstance(event, CheckpointFailed)]
    where = f"{Locked.__module__}:Locked, attribute lock"
    assert why == f"{where}: no checkpoint can hold the state of a _thread:lock"
    assert list(tmp_path.iterdir()) == []
