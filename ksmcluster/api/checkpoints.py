"""The directory of a run's checkpoints, and the scenario that they are of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.checkpoint.directory import latest
from actors.checkpoint.keeper import CheckpointKeeper, Interval
from ksmcluster.api.running import one_line
from ksmcluster.config import Scenario, load, resolved_toml
from ksmcluster.results.identity import config_digest
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import real_path
from ksmcluster.system.toml import parse_toml
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
        _check(directory, _run(directory, earlier.run), run)
    return CheckpointKeeper(path, run, interval)


def _check(directory: str, earlier: dict[str, Any], run: dict[str, Any]) -> None:
    if earlier["version"] != run["version"]:
        raise UserError(
            f"{directory}: its checkpoints are of ksmcluster {earlier['version']}, and this is "
            f"{run['version']}; run that version, or choose another directory"
        )
    if earlier["digest"] != run["digest"]:
        raise UserError(f"{directory}: its checkpoints are of another scenario; choose another directory")


@contextmanager
def going_on(keeper: CheckpointKeeper | None) -> Iterator[None]:
    """Turn what comes of a state that no run has written, whatever it is, into a UserError."""
    earlier = keeper.latest() if keeper else None
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if earlier is None:
            raise
        reason = str(error).splitlines()[-1] if str(error) else ""
        raise UserError(
            f"{earlier.folder}: no run can go on from it ({type(error).__name__}: {reason}); remove it to go "
            "on from the one before"
        ) from error


def checkpointed(directory: str | os.PathLike[str]) -> Scenario:
    """Return the scenario of the checkpoints in a directory."""
    with one_line():
        found = latest(real_path(Path(directory)))
    if found is None:
        raise UserError(
            f"{os.fspath(directory)}: there is no checkpoint; name the directory of a --checkpoint"
        )
    run = _run(os.fspath(directory), found.run)
    try:
        return load(parse_toml(run["config"])).with_notes(run["notes"])
    except (UserError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{os.fspath(directory)}: the scenario of its checkpoints: {reason}") from error


def _run(directory: str, run: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the run. Raises UserError if something is missing or of another type."""
    texts = [run.get(name) for name in ("version", "digest", "config")]
    notes = run.get("notes")
    if not isinstance(notes, list) or not all(isinstance(text, str) for text in (*texts, *notes)):
        raise UserError(f"{directory}: its checkpoints do not say of which run they are; choose another one")
    return run
