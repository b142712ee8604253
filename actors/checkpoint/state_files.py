"""Encoded states in files: the arrays in one, and JSON in another that says where each array is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from cluster.arrays.words import Array
from cluster.checkpoint.encode import KINDS, Encoded
from cluster.spec.errors import SimulationError
from cluster.spec.input_files import read_input

#: Arrays begin at multiples of it.
_LINE_SIZE = 64
_NAME = re.compile(r"[a-z0-9.-]{1,100}", re.ASCII)


class SavedFile(NamedTuple):
    """A file of a checkpoint: its name, bytes and blake3 digest."""

    name: str
    size: int
    digest: str

    @classmethod
    def of_json(cls, value: object) -> SavedFile:
        """Return what a manifest says of a file. Raises ValueError if it is nothing that was written."""
        match value:
            case [str(name), int(size), str(digest)] if size >= 0 and _NAME.fullmatch(name):
                return cls(name, size, digest)
        raise ValueError(f"{str(value)[:80]} is no file of a checkpoint")


class DamagedError(SimulationError):
    """A file of a checkpoint that is not as it was written."""


class UnwritableError(SimulationError):
    """A checkpoint that cannot be written."""


def write_state(folder: Path, name: str, state: Encoded) -> list[SavedFile]:
    """Write a state to `name`.json and `name`.arrays, until they are on the disk; return these files.

    Raises UnwritableError if they cannot be written.
    """
    arrays = [np.ascontiguousarray(array) for array in state.arrays]
    places: list[list[object]] = []
    offset = 0
    for array in arrays:
        places.append([array.dtype.str, list(array.shape), offset])
        offset += array.nbytes + -array.nbytes % _LINE_SIZE
    text = json.dumps({"root": state.root, "arrays": places}, separators=(",", ":"))
    return [
        write_file(folder / f"{name}.json", iter([memoryview(text.encode())])),
        write_file(folder / f"{name}.arrays", _lines(arrays)),
    ]


def _lines(arrays: list[Array]) -> Iterator[memoryview]:
    for array in arrays:
        yield array.reshape(-1).view(np.uint8).data
        yield memoryview(bytes(-array.nbytes % _LINE_SIZE))


def write_file(path: Path, parts: Iterator[memoryview]) -> SavedFile:
    """Write a file that is not there yet, until it is on the disk. Raises UnwritableError."""
    digest, size = blake3(), 0
    try:
        with path.open("xb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
                size += part.nbytes
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UnwritableError(f"cannot write {path.parent}: {os.strerror(error.errno or 0)}") from error
    return SavedFile(path.name, size, digest.hexdigest())


def read_state(folder: Path, name: str, files: dict[str, SavedFile]) -> Encoded:
    """Read a state from `name`.json and `name`.arrays.

    `files` says how these were written. Raises DamagedError if they are not so, or cannot be read.
    """
    try:
        document = json.loads(read_file(folder, files[f"{name}.json"]))
        data = np.frombuffer(read_file(folder, files[f"{name}.arrays"]), np.uint8)
        # A copy of each, so that each is freed by itself.
        arrays = [_array(data, *place).copy() for place in document["arrays"]]
        return Encoded(document["root"], arrays)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedError(f"{folder}: the state of {name} is not one ({error!r})") from error


def _array(data: Array, dtype: str, shape: list[int], offset: int) -> Array:
    kind = np.dtype(dtype)
    if kind.kind not in KINDS or offset % _LINE_SIZE or min(shape, default=0) < 0:
        raise ValueError("no array of a state")
    size = int(np.prod(shape, dtype=object)) * kind.itemsize
    if not 0 <= offset <= offset + size <= len(data):
        raise ValueError("an array beyond the end of its file")
    return data[offset : offset + size].view(kind).reshape(shape)


def read_file(folder: Path, saved: SavedFile) -> bytes:
    """Return the bytes of a file; raise DamagedError if it has changed since it was written."""
    path = folder / saved.name
    try:
        data = read_input(path, saved.size)
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror}") from error
    if len(data) != saved.size:
        raise DamagedError(f"{path}: the file has another size than when it was written")
    if blake3(data).hexdigest() != saved.digest:
        raise DamagedError(f"{path}: the file has changed since it was written")
    return data
