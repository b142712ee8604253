"""A finished run for pictures and reports, from a `Result` or a `CompactionResult`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ksmcluster.config.tables import ConfigTable
from ksmcluster.results.directory import PASSES, Writable

if TYPE_CHECKING:
    import pyarrow as pa


class Summarised(Writable, Protocol):
    """A result with its summary."""

    @property
    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""


class RunData(NamedTuple):
    """The data of a finished run."""

    #: Name of the run where several runs are shown.
    label: str
    #: The scenario of the run.
    config: ConfigTable
    #: The contents of summary.json.
    summary: Mapping[str, Any]
    #: The contents of provenance.json.
    provenance: Mapping[str, Any]
    #: Tables by file name.
    tables: Mapping[str, pa.Table]

    @property
    def command(self) -> str:
        """The command of the run: `simulate` or `compact`."""
        return "simulate" if PASSES in self.tables else "compact"

    def by_node(self, name: str) -> NDArray[np.int64]:
        """Return a statistic of a simulation as int64[passes, nodes]."""
        column: NDArray[np.int64] = self.tables[PASSES][name].to_numpy()
        return column.reshape(-1, self.summary["nodes"])


def of_result(result: Summarised, label: str = "") -> RunData:
    """Return the data of a result; the default label is its title."""
    name = label or result.summary["title"]
    return RunData(name, result.config, result.summary, result.provenance, result.tables())
