"""The directory of a sweep while it is written: its plan, and a line for each run that is done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ksmcluster.experiments.sweeps.run_one import RunRecord
from ksmcluster.experiments.sweeps.stored import PLAN, RUNS, read_plan
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import real_path, sibling


class Journal:
    """The directory of a sweep, while runs are added to it. Made by `opened`."""

    def __init__(self, directory: Path, file: BinaryIO) -> None:
        self.directory = directory
        self._file = file

    def add(self, record: RunRecord) -> None:
        """Keep the record of a run: on the disk when this returns."""
        self._file.write(json.dumps(record.as_json()).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the directory, all of it or nothing."""
        beside = self.directory / f".{name}.new"
        beside.write_bytes(data)
        beside.replace(self.directory / name)


@contextmanager
def opened(directory: Path, plan: dict[str, Any], *, resume: bool) -> Iterator[Journal]:
    """Make the directory of a sweep, or with `resume` go on in the one that is there.

    Raises UserError if it holds anything else, another sweep, or one that is under way.
    """
    try:
        real = real_path(directory)
        if real.is_dir() and any(real.iterdir()):
            _check(real, directory, plan, resume)
        else:
            _make(real, plan)
        with (real / RUNS).open("r+b") as file:
            _lock(file, directory)
            _cut(file)
            yield Journal(real, file)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}; choose another --output") from error


def _check(real: Path, named: Path, plan: dict[str, Any], resume: bool) -> None:
    if not (real / PLAN).is_file() or not (real / RUNS).is_file():
        raise UserError(f"cannot write to {named}: it is not empty, and not a sweep; choose another --output")
    if not resume:
        raise UserError(f"{named} holds a sweep: go on with --resume, or choose another --output")
    if (wrong := _difference(read_plan(real), plan)) is not None:
        raise UserError(
            f"--resume: {named} holds another sweep ({wrong}); repeat its command, or choose another --output"
        )


def _difference(earlier: dict[str, Any], plan: dict[str, Any]) -> str | None:
    """Say what differs between two plans."""
    for name, what in {
        "ksmcluster_version": "of another version of ksmcluster",
        "command": "of the other command",
        "seeds": "with other seeds",
        "passes_rows": "with or without --passes-rows",
    }.items():
        if earlier.get(name) != plan.get(name):
            return what
    for name, what in {"settings": "of other points", "digest": "of another scenario"}.items():
        if [point[name] for point in earlier["points"]] != [point[name] for point in plan["points"]]:
            return what
    return None


def _make(real: Path, plan: dict[str, Any]) -> None:
    real.parent.mkdir(parents=True, exist_ok=True)
    with sibling(real) as new:
        (new / PLAN).write_text(json.dumps(plan, indent=1) + "\n", "utf-8")
        (new / RUNS).touch()
        new.rename(real)


def _lock(file: BinaryIO, named: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process runs the sweep in {named}: wait for it, or end it") from None


def _cut(file: BinaryIO) -> None:
    """Go to the end of the last whole line, and remove what is behind it."""
    end = file.read().rfind(b"\n") + 1
    file.seek(end)
    file.truncate()
