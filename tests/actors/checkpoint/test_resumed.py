"""A run that goes on from a checkpoint, on whatever engine, ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.run_options import INLINE, RunOptions
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import CheckpointFailed, CheckpointWritten, Event, PassDone, RunRestarting
from cluster.spec.errors import LostError
from cluster.spec.scenario import SimulationSpec
from tests.actors.test_engine import COMPACTED, SPEC, same
from tests.actors.test_killed import processes

STEADY = replace(SPEC, ksm=replace(SPEC.ksm, history="steady", merge_across_nodes=0))


def keeper(directory: Path) -> CheckpointKeeper:
    directory.mkdir(exist_ok=True)
    return CheckpointKeeper(directory, {}, Interval(steps=2))


@pytest.mark.parametrize(
    ("spec", "first", "then"),
    [(SPEC, 0, 2), (SPEC, 2, 1), (STEADY, 2, 0), (COMPACTED, 0, 2), (COMPACTED, 2, 0)],
)
def test_a_run_goes_on_with_other_actors(
    ray_cluster: str, tmp_path: Path, spec: SimulationSpec, first: int, then: int
) -> None:
    """`first` and `then` are nodes of an actor; 0 is the inline engine."""
    before, after = (
        RunOptions(address=ray_cluster, nodes_per_actor=packed) if packed else INLINE
        for packed in (first, then)
    )
    undisturbed = list(run_passes(spec, INLINE))
    written: list[Event] = []
    with closing(run_passes(spec, before, checkpoints=keeper(tmp_path), on_event=written.append)) as run:
        assert same([next(run), next(run)], undisturbed[:2])
    assert [event.steps for event in written if isinstance(event, CheckpointWritten)] == [2]
    events: list[Event] = []
    made = list(run_passes(spec, after, checkpoints=keeper(tmp_path), on_event=events.append))
    assert same(undisturbed, made)
    assert [repr(a.compaction) for a in made] == [repr(b.compaction) for b in undisturbed]
    # The passes before the checkpoint are not run again.
    assert next(event.result.number for event in events if isinstance(event, PassDone)) == 3


def test_a_run_that_cannot_write_goes_on(tmp_path: Path) -> None:
    checkpoints = keeper(tmp_path / "there")
    (tmp_path / "there").rmdir()
    events: list[Event] = []
    made = list(run_passes(SPEC, INLINE, checkpoints=checkpoints, on_event=events.append))
    assert same(made, list(run_passes(SPEC, INLINE)))
    assert sum(isinstance(event, CheckpointFailed) for event in events) == 2


@pytest.mark.parametrize(
    ("victim", "kept"), [("NodeActor", True), ("CoordinatorActor", True), ("NodeActor", False)]
)
def test_a_run_survives_the_death_of_an_actor(
    ray_cluster: str, tmp_path: Path, victim: str, kept: bool
) -> None:
    spec = replace(SPEC, passes=6)
    restarted: list[RunRestarting] = []

    def on_event(event: Event) -> None:
        if isinstance(event, PassDone) and event.result.number == 3 and not restarted:
            os.kill(processes(victim)[-1], signal.SIGKILL)
        if isinstance(event, RunRestarting):
            restarted.append(event)

    checkpoints = keeper(tmp_path) if kept else None
    options = RunOptions(address=ray_cluster, nodes_per_actor=2)
    made = list(run_passes(spec, options, checkpoints=checkpoints, on_event=on_event))
    assert same(made, list(run_passes(spec, INLINE)))
    assert [event.steps for event in restarted] == [2 if kept else 0]


def test_too_many_deaths_end_the_run(ray_cluster: str) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, PassDone):
            os.kill(processes("NodeActor")[0], signal.SIGKILL)

    options = RunOptions(address=ray_cluster, nodes_per_actor=3, max_failures=1)
    died = r"a node actor of nodes (0 to 2|3 to 4) on \S+ \(\S+\) died: its process was killed or crashed"
    with pytest.raises(LostError, match=rf"^{died}, in pass \d+, as death 2 of this run \(--max-failures\)$"):
        list(run_passes(SPEC, options, on_event=on_event))
