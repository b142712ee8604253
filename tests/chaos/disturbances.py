"""What happens to a run: deaths, frozen processes, and a command that is killed and goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.chaos.commands import ACTORS, Command, differences
from tests.chaos.three_machines import ThreeMachines

#: Of the frozen processes; longer than Ray's actors do nothing on a busy machine.
STALL_SECONDS = 15


class Trial(NamedTuple):
    """A run to disturb: its scenario, how long it takes, the undisturbed output, and a folder for it."""

    scenario: list[str]
    seconds: float
    expected: Path
    folder: Path
    rng: Random
    cluster: ThreeMachines | None = None
    #: Disturbances of this run, at most.
    most: int = 3

    def times(self) -> int:
        """Draw how often the run is disturbed."""
        return self.rng.randint(1, self.most)


class Outcome(NamedTuple):
    """What happened how often, and what was wrong in the end, if anything."""

    disturbed: int
    wrong: str


def _options(trial: Trial) -> list[str]:
    rng = trial.rng
    options = ["--nodes-per-actor", str(rng.choice([1, 2, 3])), "--migration-actors", "2"]
    if rng.random() < 0.75:
        options += ["--checkpoint", str(trial.folder / "checkpoint")]
        options += ["--checkpoint-every", rng.choice(["1p", "5p", "1s"])]
    return options


def _start(trial: Trial, *options: str) -> Command:
    trial.folder.mkdir()
    output = ["--output", str(trial.folder / "output")]
    return Command([*trial.scenario, *output, *_options(trial), *options], trial.folder, trial.cluster)


def _ended(trial: Trial, command: Command, disturbed: int) -> Outcome:
    code = command.end()
    if code != 0:
        return Outcome(disturbed, f"exit code {code}")
    return Outcome(disturbed, ", ".join(differences(trial.folder / "output", trial.expected)))


def _sleep(trial: Trial, command: Command, parts: int) -> None:
    """Wait for a random moment of the run, the `parts`th part of it at most."""
    end = time.monotonic() + trial.rng.uniform(0, trial.seconds / parts)
    command.wait(lambda: time.monotonic() >= end)


def deaths(trial: Trial, kind: str) -> Outcome:
    """Kill processes of this kind at random moments."""
    command = _start(trial, "--max-failures", "20")
    times = trial.times()
    killed = 0
    for _ in range(times):
        _sleep(trial, command, times)
        killed += command.send(trial.rng, [ACTORS[kind]], signal.SIGKILL)
    return _ended(trial, command, killed)


def machine(trial: Trial) -> Outcome:
    """Kill one of the two machines of the cluster that are not the head, or one after the other."""
    assert trial.cluster is not None
    trial.cluster.revive()
    command = _start(trial, "--max-failures", "20")
    others = trial.rng.sample(trial.cluster.machines[1:], trial.rng.choice([1, 2]))
    killed = 0
    for one in others:
        # The cluster is there already, so the run is shorter than one that starts its Ray.
        _sleep(trial, command, 2 * len(others))
        one.kill()
        killed += command.runs
    return _ended(trial, command, killed)


def frozen(trial: Trial) -> Outcome:
    """Stop actors, or our own raylet, at random moments."""
    command = _start(trial, "--max-failures", "20", "--stall-timeout", str(STALL_SECONDS))
    times, stopped = trial.times(), 0
    for _ in range(times):
        _sleep(trial, command, times)
        names = ["raylet/raylet"] if trial.rng.random() < 0.2 else list(ACTORS.values())
        stopped += command.send(trial.rng, names, signal.SIGSTOP)
    return _ended(trial, command, stopped)


def command(trial: Trial) -> Outcome:
    """Kill the command with all of its Ray, and go on with other engines and numbers of actors."""
    checkpoint = ["--checkpoint", str(trial.folder / "checkpoint"), "--checkpoint-every", "1p"]
    run = _start(trial, *checkpoint)
    times, killed = trial.times(), 0
    for _ in range(times):
        _sleep(trial, run, 1)
        if not run.runs:
            break
        run.kill()
        killed += 1
        if not any((trial.folder / "checkpoint").glob("step-*")):
            run = _again(trial, [*trial.scenario, *checkpoint])
        else:
            run = _again(trial, ["resume", checkpoint[1], "--checkpoint-every", "1p"])
    return _ended(trial, run, killed)


def _again(trial: Trial, arguments: list[str]) -> Command:
    engine = trial.rng.choice(
        [["--engine", "inline"], *(["--nodes-per-actor", str(packed)] for packed in (1, 3, 8))]
    )
    cluster = trial.cluster if engine[0] != "--engine" else None
    return Command([*arguments, *engine, "--output", str(trial.folder / "output")], trial.folder, cluster)


KINDS: dict[str, Callable[[Trial], Outcome]] = {
    "node": lambda trial: deaths(trial, "node"),
    "memory": lambda trial: deaths(trial, "memory"),
    "migration": lambda trial: deaths(trial, "migration"),
    "coordinator": lambda trial: deaths(trial, "coordinator"),
    "machine": machine,
    "frozen": frozen,
    "command": command,
}
#: Kinds that need a cluster.
ON_CLUSTER = {"machine"}
#: The commands that a kind disturbs, in turn; by default `simulate`.
COMMANDS = {
    "memory": ["compact"],
    "migration": ["simulate", "compact"],
    "frozen": ["simulate", "compact"],
    "command": ["simulate", "compact"],
}
