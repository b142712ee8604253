"""The checkpoint directory of a run, and the scenario stored in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.checkpoint.directory import latest
from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.run_options import RunOptions
from cluster.machine.pass_result import CheckpointFailed, CheckpointWritten, Event, RunRestarting
from cluster.spec.errors import SimulationError
from ksmcluster.api.running import Progress, one_line
from ksmcluster.config import Scenario, load, load_compaction, resolved_toml
from ksmcluster.results.identity import config_digest
from ksmcluster.system import signals
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import real_path
from ksmcluster.system.toml import parse_toml
from ksmcluster.system.version import __version__

if TYPE_CHECKING:
    from ksmcluster.config.compaction import CompactionScenario


def keeper(scenario: Scenario | CompactionScenario, options: RunOptions) -> CheckpointKeeper | None:
    """Return the keeper that writes checkpoints to `options.checkpoint`, or None if no directory is given.

    Creates the directory. Raises UserError if the directory cannot be used, or if it contains checkpoints of
    another version, command or scenario.
    """
    if options.checkpoint is None:
        return None
    directory = options.checkpoint
    with one_line():
        interval = Interval.parse(options.checkpoint_every)
    path = real_path(Path(directory))
    simulated = isinstance(scenario, Scenario)
    run = {
        "version": __version__,
        "command": "simulate" if simulated else "compact",
        "digest": config_digest(scenario),
        "config": resolved_toml(scenario),
        "notes": list(scenario.notes) if simulated else [],
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wrong = "not a directory" if path.exists() else os.strerror(error.errno or 0)
        raise UserError(f"--checkpoint {directory}: {wrong}; choose another directory") from error
    with one_line():
        earlier = latest(path)
    if earlier is not None:
        _check(directory, _run(directory, earlier.run), run)
    return CheckpointKeeper(path, run, interval, signals.is_ending)


def _check(directory: str, earlier: dict[str, Any], run: dict[str, Any]) -> None:
    _check_version(directory, earlier)
    if earlier["command"] != run["command"]:
        raise UserError(
            f"{directory}: it has checkpoints of `ksmcluster {earlier['command']}`; choose another directory"
        )
    if earlier["digest"] != run["digest"]:
        raise UserError(f"{directory}: it has checkpoints of another scenario; choose another directory")


@contextmanager
def checkpoint_before_the_end(directory: str | None, on_event: Progress) -> Iterator[Progress]:
    """Let SIGTERM wait until the current pass or round has ended and its checkpoint is written.

    Yields the function to call with each event. The message about the signal names the last checkpoint.
    Without a directory, signals end the run at once.
    """
    if directory is None:
        yield on_event
        return
    path = real_path(Path(directory))

    def note() -> str:
        with suppress(SimulationError):
            if (last := latest(path)) is not None:
                step = "pass" if last.run["command"] == "simulate" else "round"
                resume = f"ksmcluster resume {shlex.quote(directory)}"
                return f"checkpoint after {step} {last.steps}; continue with {resume}"
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


def _check_version(directory: str, run: dict[str, Any]) -> None:
    if run["version"] != __version__:
        raise UserError(
            f"{directory}: its checkpoints are from ksmcluster {run['version']}, but this is {__version__}; "
            "use that version or choose another directory"
        )


def checkpointed(directory: str | os.PathLike[str]) -> tuple[Scenario | CompactionScenario, int]:
    """Return the scenario of the checkpoints in a directory, and the passes or rounds that are done.

    Raises UserError if there are none, or if another version wrote them.
    """
    with one_line():
        found = latest(real_path(Path(directory)))
    if found is None:
        raise UserError(
            f"{os.fspath(directory)}: no complete checkpoint found; give the directory that was given to "
            "--checkpoint or, if the run ended before its first checkpoint, repeat the first command"
        )
    run = _run(os.fspath(directory), found.run)
    _check_version(os.fspath(directory), run)
    try:
        config = parse_toml(run["config"])
        if run["command"] == "compact":
            return load_compaction(config), found.steps
        return load(config).with_notes(run["notes"]), found.steps
    except (UserError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{os.fspath(directory)}: the scenario in its checkpoints is invalid: {reason}"
        ) from error


def _run(directory: str, run: dict[str, Any]) -> dict[str, Any]:
    """Return the run's entry of a manifest. Raises UserError if a field is missing or has the wrong type."""
    texts = [run.get(name) for name in ("version", "command", "digest", "config")]
    notes = run.get("notes")
    if not isinstance(notes, list) or not all(isinstance(text, str) for text in (*texts, *notes)):
        raise UserError(f"{directory}: its checkpoints do not describe their run; choose another directory")
    return run
