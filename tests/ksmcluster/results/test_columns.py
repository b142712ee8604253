"""Tables of results: as pyarrow and pandas have them, and as they are shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ksmcluster
from ksmcluster.config import Overrides, load_compaction
from ksmcluster.results.columns import ColumnTable
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError


def test_a_table_survives_arrow(result: Result) -> None:
    for table in (result.passes, result.processes, result.mappings):
        again = type(table).of_arrow(table.to_arrow())
        assert list(again) == list(table)
        assert all(again[name].tolist() == column.tolist() for name, column in table.items())
        assert all(again[name].dtype == column.dtype for name, column in table.items())


def test_missing_values_are_none() -> None:
    table = ColumnTable.of_arrow(pa.table({"pid": [1, None], "name": ["a", None]}))
    assert table["pid"].tolist() == [1, None]
    assert table["name"].tolist() == ["a", None]


def test_data_frames(result: Result) -> None:
    pytest.importorskip("pandas")
    frame = result.passes.to_pandas()
    assert list(frame.columns) == list(result.passes)
    assert frame["pages_shared"].tolist() == result.passes["pages_shared"].tolist()
    assert result.mappings.to_pandas()["mapping"].tolist() == result.mappings["mapping"].tolist()


def test_without_pandas_there_is_one_line(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"^to_pandas: needs pandas: pip install 'ksmcluster\[pandas\]'$"):
        result.passes.to_pandas()


def test_short_reprs(result: Result) -> None:
    assert repr(result.passes) == f"<PassTable: 12 rows, {len(result.passes)} columns>"
    assert repr(result.processes).startswith("<CensusTable: ")
    small = Overrides(1, settings=("machine.memory_per_node=16MiB",))
    compacted = ksmcluster.compact(load_compaction("compaction-zram", small), engine="inline")
    got, asked = compacted.summary["obtained"], compacted.summary["requested"]
    says = f"1 node, {got['movable_off']} to {got['movable_on']} of {asked} blocks obtained"
    assert repr(compacted) == f"<CompactionResult: {says}>"
    assert repr(compacted.nodes) == f"<NodeTable: 1 row, {len(compacted.nodes)} columns>"


def test_columns_have_units(tmp_path: Path) -> None:
    ksmcluster.simulate("tiny", engine="inline").save(tmp_path / "out")
    units = {
        (name, column): pq.read_schema(tmp_path / "out" / f"{name}.parquet").field(column).metadata
        for name, column in (
            *(("passes", "frames_used"), ("passes", "ksmd_cpu_ns"), ("passes", "node")),
            *(("processes", "ksm_process_profit"), ("mappings", "pages_mapped")),
        )
    }
    assert units == {
        ("passes", "frames_used"): {b"unit": b"pages"},
        ("passes", "ksmd_cpu_ns"): {b"unit": b"ns"},
        ("passes", "node"): None,
        ("processes", "ksm_process_profit"): {b"unit": b"bytes"},
        ("mappings", "pages_mapped"): {b"unit": b"pages"},
    }


def test_an_unknown_statistic_is_named() -> None:
    result = ksmcluster.simulate("tiny", engine="inline", passes=1)
    with pytest.raises(UserError, match='there is no statistic page_shared; did you mean "pages_shared"'):
        result.by_node("page_shared")
