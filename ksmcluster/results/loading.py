"""Loads results from a directory written by `Result.save`."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.compaction.internode.drain import Drained, Stayed
from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.spec.compaction import RelocationSpec
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_JSON, MOST_TABLE
from cluster.spec.topology import Distances
from ksmcluster.config import Scenario, load_either, to_spec
from ksmcluster.config.compaction import CompactionScenario, to_compaction_spec
from ksmcluster.results.columns import ColumnTable
from ksmcluster.results.compaction.compaction_result import CompactionResult, NodeTable
from ksmcluster.results.directory import (
    CONFIG,
    MAPPINGS,
    NODE_PAIRS,
    NODES,
    PASSES,
    PROCESSES,
    PROVENANCE,
    RELOCATIONS,
    SUMMARY,
)
from ksmcluster.results.node_pairs import NodePairs
from ksmcluster.results.processes import CensusTable
from ksmcluster.results.result import PassTable, Result
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


#: Exceptions raised by reading files that are not ours.
_NO_RESULT = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NotImplementedError, OSError, RecursionError, TypeError, ValueError),
)


def load_result(directory: str | Path) -> Result | CompactionResult:
    """Return the result in a directory. Raises UserError if there is none."""
    folder = Path(directory)
    if not folder.is_dir():
        wrong = "not a directory" if folder.exists() else "no such directory"
        raise UserError(f"{folder}: {wrong}; give that of an --output")
    try:
        summary, provenance = (
            json.loads(read_input(folder / name, MOST_JSON)) for name in (SUMMARY, PROVENANCE)
        )
        config = load_either(folder / CONFIG)
        if isinstance(config, CompactionScenario):
            return _compacted(folder, config, summary, provenance)
        return _simulated(folder, config, summary, provenance)
    except PermissionError as error:
        raise UserError(f"{folder}: no permission to read it; ask its owner") from error
    except (*_NO_RESULT, UserError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{folder}: not an output of simulate or compact ({reason}); give the directory of an --output"
        ) from None


def _compacted(
    folder: Path, config: CompactionScenario, summary: dict[str, Any], provenance: dict[str, Any]
) -> CompactionResult:
    spec = to_compaction_spec(config)
    assert spec.distance is not None
    moves = _Moves(spec.relocations, spec.distance)
    relocated = moves.of(folder, summary["relocations"])
    return CompactionResult(config, NodeTable.of_arrow(_read(folder / NODES)), summary, provenance, relocated)


def _simulated(folder: Path, config: Scenario, summary: dict[str, Any], provenance: dict[str, Any]) -> Result:
    spec = to_spec(config)
    relocated: tuple[RelocationResult, ...] = ()
    if spec.migration is not None:
        # In the order in which they happened.
        due = sorted(spec.relocations, key=lambda relocation: relocation.after_pass or 0)
        moves = _Moves(due, spec.machine.distance)
        relocated = moves.of(folder, summary["migration"]["relocations"])
    passes = PassTable.of_arrow(_read(folder / PASSES))
    processes, mappings = (CensusTable.of_arrow(_read(folder / name)) for name in (PROCESSES, MAPPINGS))
    pairs = NodePairs.of_arrow(_read(folder / NODE_PAIRS))
    return Result(config, passes, summary, provenance, processes, mappings, pairs, relocated)


def _read(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    # Opened here: pyarrow takes no names that are not UTF-8.
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MOST_TABLE:
            raise ValueError(f"{path.name} unpacks to more than {MOST_TABLE:,} bytes")
        return file.read()


class _Moves(NamedTuple):
    """The relocations of a scenario, in the order of its results."""

    specs: Sequence[RelocationSpec]
    distance: Distances

    def of(self, folder: Path, done: Sequence[Mapping[str, Any]]) -> tuple[RelocationResult, ...]:
        """Return the results of relocations; `done` is their part of summary.json.

        The files have only the time of the slowest node, so every node gets it. They have no walks by
        relocation.
        """
        file = folder / RELOCATIONS
        table = ColumnTable.of_arrow(_read(file)) if file.exists() else {}
        return tuple(self._result(number, of_one, table) for number, of_one in enumerate(done))

    def _result(
        self, number: int, done: Mapping[str, Any], table: Mapping[str, NDArray[Any]]
    ) -> RelocationResult:
        pages, attempts = (np.zeros_like(self.distance) for _ in range(2))
        if table:
            rows = table["relocation"] == number
            pairs = table["source"][rows], table["target"][rows]
            pages[pairs], attempts[pairs] = table["pages"][rows], table["attempts"][rows]
        seconds = np.full(len(self.distance), done["simulated_seconds"])
        drained = {node["node"]: _drained(number, node) for node in done["drained"]}
        return RelocationResult(self.specs[number], pages, attempts, seconds, drained)


def _drained(number: int, node: Mapping[str, Any]) -> Drained:
    stayed = tuple(Stayed(**of_owner) for of_owner in node["stayed"])
    offline, pageblocks = node.get("pageblocks_offline", 0), node.get("pageblocks", 0)
    return Drained(number, offline, pageblocks, node.get("would_stay_movable_off", 0), stayed)
