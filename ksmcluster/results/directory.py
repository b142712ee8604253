"""Writes the directory of `--output` atomically."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_JSON
from ksmcluster.config import resolved_toml
from ksmcluster.config.tables import ConfigTable
from ksmcluster.results.identity import text_digest
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import real_path, sibling, why_not_writable

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "summary.json"
PROVENANCE = "provenance.json"
PASSES = "passes.parquet"
NODES = "nodes.parquet"
RELOCATIONS = "relocations.parquet"
PROCESSES = "processes.parquet"
MAPPINGS = "mappings.parquet"
NODE_PAIRS = "node_pairs.parquet"
CONFIG = "config.toml"
#: Optional tables of an output, by the table that identifies its command.
TABLES = {PASSES: {PROCESSES, MAPPINGS, NODE_PAIRS, RELOCATIONS}, NODES: {RELOCATIONS}}


class Writable(Protocol):
    """A result of any command."""

    @property
    def config(self) -> ConfigTable:
        """The scenario."""

    @property
    def provenance(self) -> dict[str, Any]:
        """How and where it was simulated."""

    def summary_json(self) -> str:
        """The text of summary.json."""

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables by file name, as in TABLES."""


def check_directory(directory: Path, table: str, checkpoint: Path | None = None) -> Path:
    """Return the real path of the directory to which a simulation will write.

    Raises UserError if no output with this table, PASSES or NODES, can be written there, or not without the
    directory of checkpoints.
    """
    try:
        real = real_path(directory)
        wrong = _what_is_wrong(real, table)
        if not wrong and checkpoint and real in (place := real_path(checkpoint), *place.parents):
            wrong = f"it would replace --checkpoint {checkpoint}; choose a directory that does not hold it"
    except OSError as error:
        wrong = f"{error.strerror}; choose another directory"
    if wrong:
        raise UserError(f"cannot write the results to {directory}: {wrong}")
    return real


def _what_is_wrong(directory: Path, table: str) -> str:
    try:
        directory.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
    if os.path.lexists(directory) and (wrong := _why_it_must_stay(directory, table)):
        return wrong
    place = next(parent for parent in directory.parents if os.path.lexists(parent))
    if not place.is_dir():
        return f"{place} is not a directory; choose another one"
    return why_not_writable(place, directory.name)


def _why_it_must_stay(directory: Path, table: str) -> str:
    """Say why the directory cannot be replaced."""
    if not directory.is_dir():
        return "it is not a directory; choose another name"
    if os.path.ismount(directory):
        return "it is a mount point; choose a directory in it"
    if directory.samefile(os.curdir):
        return "it is the working directory; choose a directory in it"
    return _what_is_foreign(directory, table)


def _what_is_foreign(directory: Path, table: str) -> str:
    """Say what is in the directory, if it is not an earlier output with this table."""
    names = {path.name for path in directory.iterdir()}
    if names and not _is_output(directory, names):
        return "it is not empty and not an earlier output; choose another directory"
    other = {PASSES: NODES, NODES: PASSES}[table]
    if other in names:
        return f"it has {other}, an output of another command; choose another directory"
    return ""


def _is_output(directory: Path, names: set[str]) -> bool:
    """Return whether the files are exactly those of an earlier output, unchanged."""
    if not any({SUMMARY, PROVENANCE, CONFIG, table} == names - more for table, more in TABLES.items()):
        return False
    if not all(stat.S_ISREG((directory / name).lstat().st_mode) for name in names):
        return False
    try:
        provenance = json.loads(read_input(directory / PROVENANCE, MOST_JSON))
    except (ValueError, RecursionError):
        return False
    # An edited text file is the user's work.
    texts = {name: text_digest((directory / name).read_bytes()) for name in (SUMMARY, CONFIG)}
    return isinstance(provenance, dict) and provenance.get("files") == texts


def write_directory(directory: Path, result: Writable) -> None:
    """Write the files of a result to the directory, and replace an earlier output."""
    tables = result.tables()
    table = PASSES if PASSES in tables else NODES
    real = check_directory(directory, table)
    real.parent.mkdir(parents=True, exist_ok=True)
    with sibling(real) as new:
        _write_files(new, real, result, tables)
        if real.exists():
            _replace(real, new, table)
        else:
            new.rename(real)


def _replace(directory: Path, new: Path, table: str) -> None:
    """Move an earlier output aside, check it again, and remove it when the new one is in place.

    If this is interrupted, even by a signal, either the earlier output stays or the new one is complete.
    """
    earlier = new.with_name(f"{new.name}.earlier")
    try:
        directory.rename(earlier)
        if wrong := _what_is_foreign(earlier, table):
            raise UserError(f"cannot write the results to {directory}: {wrong}")
        new.rename(directory)
    finally:
        if not new.exists():
            _remove(earlier)
        elif earlier.exists():
            earlier.rename(directory)


def _remove(earlier: Path) -> None:
    """Remove our files, and the directory unless other files have appeared in it meanwhile."""
    with suppress(OSError):
        for name in {SUMMARY, PROVENANCE, CONFIG}.union(TABLES, *TABLES.values()):
            (earlier / name).unlink(missing_ok=True)
        earlier.rmdir()


def _write_files(new: Path, directory: Path, result: Writable, tables: dict[str, pa.Table]) -> None:
    """Write all files into the folder `new`, which will become `directory`."""
    import pyarrow.parquet as pq

    config = resolved_toml(result.config, lambda path: relative_path(path, directory))
    texts = {SUMMARY: result.summary_json(), CONFIG: config}
    digests = {name: text_digest(text.encode()) for name, text in texts.items()}
    texts[PROVENANCE] = json.dumps(result.provenance | {"files": digests}, indent=2) + "\n"
    for name, text in texts.items():
        (new / name).write_text(text, "utf-8")
    for name, table in tables.items():
        # pyarrow takes no names that are not UTF-8.
        with (new / name).open("wb") as file:
            pq.write_table(table, file)


def relative_path(path: str, directory: Path) -> str:
    """Return the path relative to a directory; absolute if only the root is common."""
    real, base = os.path.realpath(path), os.path.realpath(directory)
    return path if os.path.commonpath([real, base]) == os.sep else os.path.relpath(real, base)
