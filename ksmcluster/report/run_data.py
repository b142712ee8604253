"""A finished run as pictures and reports read it: from a result in memory, or from its directory."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ksmcluster.config import resolved_toml
from ksmcluster.errors import UserError
from ksmcluster.results.directory import CONFIG, NODES, PASSES, SUMMARY, TABLES, Writable

if TYPE_CHECKING:
    import pyarrow as pa


class Summarised(Writable, Protocol):
    """A result with its summary: `ksmcluster.Result` and `ksmcluster.CompactionResult`."""

    @property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""


class RunData(NamedTuple):
    """What a run left behind."""

    #: How to call it where several runs are shown.
    label: str
    #: The contents of summary.json.
    summary: Mapping[str, Any]
    #: By the names of their files.
    tables: Mapping[str, pa.Table]
    #: The text of config.toml.
    toml: str

    @property
    def command(self) -> str:
        """The command that made it: `simulate` or `compact`."""
        return "simulate" if PASSES in self.tables else "compact"

    @property
    def config(self) -> dict[str, Any]:
        """The scenario as it was run."""
        return tomllib.loads(self.toml)

    def by_node(self, name: str) -> NDArray[np.int64]:
        """Return a statistic of a simulation as int64[passes, nodes]."""
        column: NDArray[np.int64] = self.tables[PASSES][name].to_numpy()
        return column.reshape(-1, self.summary["nodes"])


def of_result(result: Summarised, label: str = "") -> RunData:
    """Return the run of a result in memory; its title is the label by default."""
    return RunData(
        label or result.summary["title"], result.summary, result.tables(), resolved_toml(result.config)
    )


def read_run(directory: Path) -> RunData:
    """Read the output of `simulate` or `compact`. Raises UserError if the directory holds none."""
    import pyarrow.parquet as pq

    names = TABLES.keys() | set().union(*TABLES.values())
    try:
        summary = json.loads((directory / SUMMARY).read_text("utf-8"))
        toml = (directory / CONFIG).read_text("utf-8")
        tomllib.loads(toml)
        tables = {name: pq.read_table(directory / name) for name in names if (directory / name).exists()}
    except OSError as error:
        missing = Path(error.filename or directory).name
        raise UserError(
            f"{directory}: {missing}: {os.strerror(error.errno or 0)}; give a directory that --output wrote"
        ) from error
    except ValueError as error:
        raise UserError(f"{directory}: a file in it is damaged; run the scenario again") from error
    if not isinstance(summary, dict) or not {PASSES, NODES} & tables.keys():
        raise UserError(f"{directory}: it is not an output of simulate or compact; give another directory")
    return RunData(directory.resolve().name, summary, tables, toml)
