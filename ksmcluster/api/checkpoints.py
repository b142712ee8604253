"""The directory of a run's checkpoints, and the scenario that they are of."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actors.checkpoint.directory import latest
from actors.checkpoint.keeper import CheckpointKeeper, Interval
from cluster.machine.pass_result import CheckpointFailed, CheckpointWritten, Event, RunRestarting
from cluster.spec.errors import SimulationError
from ksmcluster.api.running import Progress, one_line
from ksmcluster.config import Scenario, load, resolved_toml
from ksmcluster.results.identity import config_digest
from ksmcluster.system import signals
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import real_path
from ksmcluster.system.version import __version__


def keeper(scenario: Scenario, directory: str, every: str) -> CheckpointKeeper:
    """Return what writes the checkpoints of a scenario to a directory, which is made if it is not there.

    Raises UserError if the directory cannot be used, or has checkpoints of another version or scenario.
    """
    with one_line():
        interval = Interval.parse(every)
    path = real_path(Path(directory))
    run = {
        "version": __version__,
        "digest": config_digest(scenario),
        "config": resolved_toml(scenario),
        "notes": list(scenario.notes),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--checkpoint {directory}: {os.strerror(error.errno or 0)}; choose another directory"
        ) from error
    with one_line():
        earlier = latest(path)
    if earlier is not None:
        _check(directory, earlier.run, run)
    return CheckpointKeeper(path, run, interval, signals.is_ending)


def _check(directory: str, earlier: dict[str, Any], run: dict[str, Any]) -> None:
    if earlier["version"] != run["version"]:
        raise UserError(
            f"{directory}: its checkpoints are of ksmcluster {earlier['version']}, and this is "
            f"{run['version']}; run that version, or choose another directory"
        )
    if earlier["digest"] != run["digest"]:
        raise UserError(f"{directory}: its checkpoints are of another scenario; choose another directory")


@contextmanager
def checkpoint_before_the_end(directory: str, on_event: Progress) -> Iterator[Progress]:
    """Let SIGTERM wait for the pass under way and its checkpoint; yield what to call with each event.

    The line that a signal's end is told in says what the last checkpoint is.
    """
    path = real_path(Path(directory))

    def note() -> str:
        with suppress(SimulationError):
            if (last := latest(path)) is not None:
                resume = f"ksmcluster resume {shlex.quote(directory)}"
                return f"checkpoint after pass {last.passes}; go on with {resume}"
        return "no checkpoint yet"

    def listen(event: Event) -> None:
        if isinstance(event, RunRestarting):  # the signal went to the actors, too
            signals.go_on()
        on_event(event)
        if isinstance(event, CheckpointWritten | CheckpointFailed):
            signals.go_on()

    signals.set_note(note)
    with signals.sigterm_deferred():
        yield listen


def checkpointed(directory: str | os.PathLike[str]) -> Scenario:
    """Return the scenario of the checkpoints in a directory."""
    with one_line():
        found = latest(real_path(Path(directory)))
    if found is None:
        raise UserError(
            f"{os.fspath(directory)}: there is no checkpoint; name the directory of a --checkpoint"
        )
    return load(tomllib.loads(found.run["config"])).with_notes(found.run["notes"])
