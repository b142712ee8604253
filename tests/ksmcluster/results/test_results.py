from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import ksmcluster
from actors.run_options import RunKeywords, RunOptions
from cluster.machine.census import Census
from cluster.machine.pass_result import PassResult
from cluster.spec.captured_pages import CapturedProcess
from cluster.spec.statistics import COUNTERS, GAUGES, NODE_NAMES, OF_PAIR, OF_PROCESS, SCHEMA_VERSION
from cluster.wire.commands import MappingName
from ksmcluster.config import load, resolved_toml
from ksmcluster.results.processes import mappings, processes
from ksmcluster.results.result import DERIVED, TIMING, Result
from ksmcluster.results.timing import Timing
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import census_of, result_of

TABLES = ("passes", "processes", "mappings", "node_pairs")
FILES = {"summary.json", "provenance.json", "config.toml", *(f"{name}.parquet" for name in TABLES)}


def test_table_has_a_row_for_each_pass_and_node(result: Result) -> None:
    assert list(result.passes) == ["pass", "node", *NODE_NAMES]
    assert result.passes["pass"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert result.passes["node"].tolist() == [0, 1, 2] * 4
    assert result.by_node("pages_shared").tolist() == [[20 * n, 40 * n, 60 * n] for n in range(1, 5)]
    table = result.passes.to_arrow()
    assert table.column_names == list(result.passes)
    assert table["pages_sharing"].to_pylist()[-1] == 90 * 4 * 3


def test_gauges_are_those_of_the_last_pass_and_counters_sums(result: Result) -> None:
    summary = result.summary
    assert set(summary["gauges"]) == {s.name for s in GAUGES}
    assert set(summary["counters"]) == {s.name for s in COUNTERS} | {"full_scans"}
    assert summary["gauges"]["pages_sharing"] == 6 * 90 * 4
    assert summary["counters"]["pages_scanned"] == 6 * 1000 * 4
    assert summary["counters"]["full_scans"] == 4


def test_what_nodes_sent_is_there_pass_by_pass(result: Result) -> None:
    assert result.summary["by_pass"]["bytes_sent"] == [6 * 5000] * 4
    assert result.summary["counters"]["bytes_sent"] == 4 * 6 * 5000


def test_derived_numbers(result: Result) -> None:
    derived = result.summary["derived"]
    assert list(derived) == [s.name for s in DERIVED]
    saved, after = 6 * 4 * (110 - 30 + 10), 6 * (1000 - 400)
    assert derived["saved_bytes"] == saved * 4096
    assert derived["memory_after_bytes"] == after * 4096
    assert derived["memory_before_bytes"] == (saved + after) * 4096
    assert derived["saved_fraction"] == saved / (saved + after)
    assert derived["general_profit_bytes"] == 6 * 4 * (90 + 10) * 4096 - 64 * 6 * 950
    assert derived["ksm_mappings_remote_fraction"] == 0.5
    assert derived["ksm_mappings_mean_distance"] == 15.0
    assert derived["simulated_seconds"] == 6.0
    assert derived["ksmd_cpu_seconds"] == pytest.approx(6 * 4 * 0.0015)
    assert derived["cow_ksm_per_second"] == 6 * 4 * 3 / 6.0
    assert derived["cow_ksm_seconds"] == pytest.approx(6 * 4 * 3 * 1800e-9)


def test_memory_without_merging_is_every_page_in_a_frame_of_its_own() -> None:
    """Whatever ksmd has not seen yet: pages are written all the time."""
    changes = ksmcluster.Overrides(settings=("simulation.windows_per_pass=4",))
    result = ksmcluster.simulate(load("vm-farm", changes), engine="inline")
    pages = result.by_node("pages_mapped") + result.by_node("ksm_zero_pages")
    assert result.by_node("frames_without_ksm").tolist() == pages.tolist()
    before = result.by_node("frames_used").sum(axis=1) * 4096 + result.summary["by_pass"]["saved_bytes"]
    assert before.tolist() == (pages.sum(axis=1) * 4096).tolist()
    lagging = result.by_node("pages_sharing") + result.by_node("ksm_zero_pages")
    assert (lagging.sum(axis=1) * 4096).tolist() != result.summary["by_pass"]["saved_bytes"]


def test_a_row_for_each_process_and_mapping_name(result: Result) -> None:
    """Two processes of the only kind; its regions have once, twice, ... what the first process has."""
    kind = result.config.process[0]
    columns = [s.name for s in OF_PROCESS]
    assert list(result.processes) == ["kind", "index", "node", "name", "pid", *columns]
    assert list(result.mappings) == ["kind", "name", "mapping", *columns]
    profit = (500 + 40) * 4096 - 900 * 64
    values = [1000, 900, 500, 40, 300, 100, profit, 0, 0]
    rows = list(zip(*result.processes.to_arrow().to_pydict().values(), strict=True))
    assert rows == [(kind.name, i, i, None, None, *((i + 1) * value for value in values)) for i in (0, 1)]
    rows = list(zip(*result.mappings.to_arrow().to_pydict().values(), strict=True))
    assert rows == [
        (kind.name, None, region.name, *(i * value for value in values))
        for i, region in enumerate(kind.region, 1)
    ]


def test_a_row_for_each_pair_of_nodes_with_mappings(result: Result, tmp_path: Path) -> None:
    assert list(result.node_pairs) == [s.name for s in OF_PAIR]
    rows = list(zip(*result.node_pairs.to_arrow().to_pydict().values(), strict=True))
    assert rows == [(0, 0, 10, 60), (0, 2, 20, 50), (1, 1, 10, 7), (2, 2, 10, 7)]
    result.save(tmp_path / "out")
    loaded = ksmcluster.load_result(tmp_path / "out")
    assert isinstance(loaded, Result)
    assert loaded.node_pairs.to_arrow() == result.node_pairs.to_arrow()


def test_captured_processes_have_names_and_pids() -> None:
    """Three processes of two captured ones."""
    captured = [CapturedProcess("sh", (), (), 0, pid=11), CapturedProcess("awk", (), (), 0, pid=12)]
    counts = np.zeros((3, 7), np.int64)
    names = (MappingName(0, "awk", ""), MappingName(0, "sh", "[heap]"))
    zeros = np.zeros(3, np.int64)
    of_frames = np.zeros(0, np.int64), np.zeros((1, 1), np.int64)
    census = Census(zeros, np.arange(3), zeros, counts, names, counts[:2], *of_frames)
    table = processes(["job"], [captured], census).to_arrow().to_pydict()
    assert (table["name"], table["pid"]) == (["sh", "awk", "sh"], [11, 12, 11])
    table = mappings(["job"], [captured], census).to_arrow().to_pydict()
    assert (table["kind"], table["name"], table["mapping"]) == (["job"] * 2, ["awk", "sh"], ["", "[heap]"])


def test_ksm_frames_by_mappings(result: Result) -> None:
    assert result.summary["ksm_frame_mappings"] == [
        {"from": 1, "to": 1, "frames": 3},
        {"from": 2, "to": 2, "frames": 0},
        {"from": 3, "to": 4, "frames": 12},
        {"from": 5, "to": 8, "frames": 40},
    ]


def test_timing_holds_what_differs_from_run_to_run(result: Result) -> None:
    timing = result.provenance["timing"]
    assert list(timing) == [s.name for s in TIMING]
    assert timing["pages_per_second"] == 24000 / 1.0
    assert timing["pass_seconds"] == [0.25] * 4
    assert timing["mail_bytes"] == [0] * 4


def test_without_any_mapping_there_is_no_mean() -> None:
    zeros = {name: np.zeros(2, np.int64) for name in NODE_NAMES}
    nothing = PassResult(1, zeros, 1, 1.0, 100, 1, 0.0, census=census_of(load("tiny")))
    result = Result.of(load("tiny"), [nothing], Timing("inline", None, None, 0.0, 0.0))
    assert result.summary["derived"]["ksm_mappings_mean_distance"] is None
    assert "KSM mappings" not in str(result)


def test_pages_to_scan_of_each_pass(result: Result) -> None:
    assert result.summary["by_pass"]["pages_to_scan"] == [100, 200, 300, 400]


def test_summary_says_what_was_run(result: Result) -> None:
    summary = json.loads(result.summary_json())
    assert summary == result.summary
    assert summary["schema_version"] == SCHEMA_VERSION
    assert (summary["seed"], summary["nodes"], summary["passes"]) == (1, 3, 4)
    other = result_of(load("tiny", ksmcluster.Overrides(seed=2)))
    assert summary["config_digest"].startswith("blake3:")
    assert other.summary["config_digest"] != summary["config_digest"]


def test_repr_is_short(result: Result) -> None:
    assert repr(result) == f"<Result: 3 nodes, 4 passes, {7 * 540 * 4096 // 2} bytes saved>"


def test_simulate_from_python() -> None:
    result = ksmcluster.simulate("tiny", engine="inline")
    assert result.summary["gauges"]["pages_shared"] > 0
    assert result.provenance["timing"]["nodes_per_actor"] is None
    with pytest.raises(UserError, match="no engine 'steam'"):
        ksmcluster.simulate("tiny", engine="steam")


# Files


def test_files(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    assert {file.name for file in out.iterdir()} == FILES
    assert list(out.parent.iterdir()) == [out]
    assert json.loads((out / "summary.json").read_text()) == result.summary
    assert load(out / "config.toml") == result.config
    assert tomllib.loads((out / "config.toml").read_text()) == tomllib.loads(resolved_toml(result.config))
    table = pq.read_table(out / "passes.parquet")
    for name, column in result.passes.items():
        assert np.array_equal(table[name].to_numpy(), column)


def test_files_may_be_read_by_others(result: Result, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    result.save(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_earlier_output_is_replaced(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result.save(out)
    other = result_of(load("tiny"))
    other.save(out)
    assert json.loads((out / "summary.json").read_text()) == other.summary
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_to_a_directory_stays_a_link(result: Result, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    result.save(tmp_path / "link")
    assert {file.name for file in (tmp_path / "real").iterdir()} == FILES
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [("thesis.tex", "years"), ("summary.json", "not ours"), ("summary.json", "[]"), ("config.toml", "")],
)
def test_other_files_are_not_touched(result: Result, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="it is not empty and not an earlier output"):
        result.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_a_file_in_place_of_the_directory(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: it is not a directory"):
        result.save(tmp_path / "file")
    with pytest.raises(UserError, match="/file is not a directory"):
        result.save(tmp_path / "file" / "out")


@pytest.mark.parametrize("earlier", [False, True])
def test_nothing_half_written_stays(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    out = tmp_path / "out"
    if earlier:
        result.save(out)
    before = {file: file.read_bytes() for file in out.glob("*")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        result.save(out)
    assert {file: file.read_bytes() for file in out.glob("*")} == before
    assert [file.name for file in tmp_path.iterdir()] == (["out"] if earlier else [])


def test_options_can_be_an_object_or_keywords() -> None:
    by_object = ksmcluster.simulate("tiny", ksmcluster.RunOptions(engine="inline"))
    by_keyword = ksmcluster.simulate("tiny", engine="inline")
    assert by_object.summary == by_keyword.summary
    assert by_object.provenance["timing"]["engine"] == "inline"
    with pytest.raises(ksmcluster.UserError, match='no argument engin; did you mean "engine"'):
        ksmcluster.simulate("tiny", engin="inline")  # type: ignore[call-arg]
    with pytest.raises(ksmcluster.UserError, match="no engine 'steam'"):
        ksmcluster.simulate("tiny", engine="steam")


def test_keywords_are_the_fields_of_the_options() -> None:
    declared = {field.name: field.type for field in fields(RunOptions)}
    assert {name: ref.__forward_arg__ for name, ref in RunKeywords.__annotations__.items()} == declared
