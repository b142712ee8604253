"""A finished run as pictures and reports read it, from a `Result` or a `CompactionResult`."""

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
    """What a run left behind."""

    #: How to call it where several runs are shown.
    label: str
    #: The scenario as it was run.
    config: ConfigTable
    #: The contents of summary.json.
    summary: Mapping[str, Any]
    #: The contents of provenance.json.
    provenance: Mapping[str, Any]
    #: By the names of their files.
    tables: Mapping[str, pa.Table]

    @property
    def command(self) -> str:
        """The command that made it: `simulate` or `compact`."""
        return "simulate" if PASSES in self.tables else "compact"

    def by_node(self, name: str) -> NDArray[np.int64]:
        """Return a statistic of a simulation as int64[passes, nodes]."""
        column: NDArray[np.int64] = self.tables[PASSES][name].to_numpy()
        return column.reshape(-1, self.summary["nodes"])


def of_result(result: Summarised, label: str = "") -> RunData:
    """Return the run of a result; its title is the label by default."""
    name = label or result.summary["title"]
    return RunData(name, result.config, result.summary, result.provenance, result.tables())
