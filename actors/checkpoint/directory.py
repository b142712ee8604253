"""The directory of a run's checkpoints: each is complete or not there, and the last two are kept.

DIR/step-000012/manifest.json         what the run is, and the files with their sizes and digests
                node-0.json, .arrays, ...    the state of each node
                simulate: simulation.json    the coordinator's state
                          passes.json        the results of the passes so far
                compact:  rounds.json        whose turn it is next

A step is a pass of ksmd, or in `compact` a round of turns.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from actors.checkpoint.state_files import DamagedError, SavedFile, UnwritableError, read_state, write_file
from actors.disk import sync
from cluster.checkpoint.encode import Encoded
from cluster.spec.errors import SimulationError
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_JSON

MANIFEST = "manifest.json"
#: Grows with each change of what is written.
FORMAT = 4
#: How many checkpoints stay.
_KEPT = 2
_NAME = re.compile(r"step-(\d{6,12})", re.ASCII)


class Checkpoint(NamedTuple):
    """A complete checkpoint: its folder, what the run is, steps done, and its files by name."""

    folder: Path
    run: dict[str, Any]
    steps: int
    files: dict[str, SavedFile]

    def is_here(self) -> bool:
        """Return whether this machine has the same checkpoint at this path."""
        try:
            return read_manifest(self.folder) == self
        except SimulationError:
            return False

    def read(self, name: str) -> Encoded:
        """Return a state; raise DamagedError if it is not as it was written."""
        return read_state(self.folder, name, self.files)


@contextmanager
def new_checkpoint(
    directory: Path, steps: int, run: Mapping[str, Any]
) -> Iterator[tuple[Path, list[SavedFile]]]:
    """Provide a folder to write the states to, and a list to enter their files in; complete it at the end.

    Raises UnwritableError if something cannot be written; then the checkpoint is not there.
    """
    folder = directory / f".{_name(steps)}.{secrets.token_hex(8)}"
    try:
        folder.mkdir()
        files: list[SavedFile] = []
        yield folder, files
        manifest = {"format": FORMAT, "run": dict(run), "steps": steps, "files": sorted(files)}
        text = json.dumps({**manifest, "digest": _digest(manifest)}, indent=1) + "\n"
        write_file(folder / MANIFEST, iter([memoryview(text.encode())]))
        sync(folder)
        complete = directory / _name(steps)
        if complete.exists():
            shutil.rmtree(complete)
        folder.rename(complete)
        sync(directory)
    except OSError as error:
        raise UnwritableError(f"cannot write {directory}: {os.strerror(error.errno or 0)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    there = _complete(directory)
    # A later one is damaged: the run would have gone on from it. A hidden one was interrupted.
    kept = [number for number in there if number <= steps][:_KEPT]
    gone = [_name(number) for number in there if number not in kept]
    for name in [*gone, *(path.name for path in directory.glob(".step-*"))]:
        shutil.rmtree(directory / name, ignore_errors=True)


def latest(directory: Path, damaged: dict[Path, DamagedError] | None = None) -> Checkpoint | None:
    """Return the last checkpoint of a directory, None if there is none.

    Passes over those in `damaged`, by folder, and enters others there. Raises DamagedError if all are.
    """
    damaged = {} if damaged is None else damaged
    folders = [directory / _name(number) for number in _complete(directory)]
    for folder in folders:
        if folder not in damaged:
            try:
                return read_manifest(folder)
            except DamagedError as error:
                damaged[folder] = error
    if folders:
        raise damaged[folders[0]]
    return None


def read_manifest(folder: Path) -> Checkpoint:
    """Return a complete checkpoint. Raises DamagedError; SimulationError for another format."""
    try:
        manifest = json.loads(read_input(folder / MANIFEST, MOST_JSON))
        digest = manifest.pop("digest")
        if manifest["format"] != FORMAT:
            raise SimulationError(f"{folder}: a checkpoint of format {manifest['format']}, not {FORMAT}")
        files = [SavedFile.of_json(file) for file in manifest["files"]]
        if digest != _digest(manifest):
            raise ValueError("it has changed since it was written")
        if type(manifest["run"]) is not dict or type(manifest["steps"]) is not int or manifest["steps"] < 1:
            raise ValueError("it says of no run and its steps")
        return Checkpoint(folder, manifest["run"], manifest["steps"], {file.name: file for file in files})
    except (AttributeError, KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        wrong = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise DamagedError(f"{folder / MANIFEST}: {wrong}") from error


def _complete(directory: Path) -> list[int]:
    """Return the numbers of steps after which there is a checkpoint, the last one first."""
    if not os.path.isdir(directory):  # noqa: PTH112 (that of Path raises for long names)
        return []
    names = [_NAME.fullmatch(path.name) for path in directory.iterdir()]
    return sorted((int(name[1]) for name in names if name), reverse=True)


def _name(steps: int) -> str:
    return f"step-{steps:06}"


def _digest(manifest: Mapping[str, Any]) -> str:
    return blake3(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
