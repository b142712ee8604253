"""The directory that `--output` writes: all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ksmcluster.config import resolved_toml
from ksmcluster.config.tables import Table
from ksmcluster.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "summary.json"
PASSES = "passes.parquet"
NODES = "nodes.parquet"
RELOCATIONS = "relocations.parquet"
CONFIG = "config.toml"


class Writable(Protocol):
    """A result, of whatever command."""

    @property
    def config(self) -> Table:
        """What was simulated."""

    def summary_json(self) -> str:
        """The text of summary.json."""

    def tables(self) -> dict[str, pa.Table]:
        """Tables by the names of their files: PASSES, NODES or RELOCATIONS."""


def check_directory(directory: Path, table: str) -> None:
    """UserError if no output with this table, PASSES or NODES, can be written there.

    To be asked before a long simulation.
    """
    if wrong := _what_is_wrong(directory, table):
        raise UserError(f"cannot write the results to {directory}: {wrong}")


def _what_is_wrong(directory: Path, table: str) -> str:
    if directory.is_dir():
        if any(directory.iterdir()) and not _is_output(directory):
            return "it is not empty, and what is in it is not an earlier output"
        other = {PASSES: NODES, NODES: PASSES}[table]
        if (directory / other).exists():
            return f"it holds {other}, an output of another command; choose another directory"
    elif directory.exists():
        return "it is not a directory"
    place = next(parent for parent in directory.resolve().parents if parent.exists())
    if not place.is_dir():
        return f"{place} is not a directory"
    try:
        with _sibling(place / directory.name):
            return ""
    except OSError as error:
        return f"nothing can be written in {place}: {os.strerror(error.errno or 0)}"


def write_directory(directory: Path, result: Writable) -> None:
    """Write the files of a result into the directory, in place of an earlier output."""
    tables = result.tables()
    check_directory(directory, PASSES if PASSES in tables else NODES)
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _sibling(directory) as new:
        _write_files(new, result, tables)
        if directory.exists():
            _replace(directory, new)
        else:
            new.rename(directory)


def _replace(directory: Path, new: Path) -> None:
    with _sibling(directory) as aside:
        earlier = directory.rename(aside / directory.name)
        try:
            new.rename(directory)
        except OSError:
            earlier.rename(directory)
            raise


def _is_output(directory: Path) -> bool:
    """Whether the directory holds an output of ours and nothing else."""
    if {path.name for path in directory.iterdir()} - {SUMMARY, PASSES, NODES, RELOCATIONS, CONFIG}:
        return False
    try:
        summary = json.loads((directory / SUMMARY).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(summary, dict) and "schema_version" in summary


def _write_files(directory: Path, result: Writable, tables: dict[str, pa.Table]) -> None:
    import pyarrow.parquet as pq

    (directory / SUMMARY).write_text(result.summary_json())
    (directory / CONFIG).write_text(resolved_toml(result.config))
    for name, table in tables.items():
        pq.write_table(table, directory / name)


@contextmanager
def _sibling(directory: Path) -> Iterator[Path]:
    """A new directory beside this one, gone at the end unless it was renamed."""
    made = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        # mkdtemp lets only the owner in; what is written for others follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
