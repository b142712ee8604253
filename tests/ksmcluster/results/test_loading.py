"""Results that are read again, and what of an output depends on the scenario alone."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

import ksmcluster
from ksmcluster.config import Overrides, load, load_compaction
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.directory import relative_path
from ksmcluster.results.identity import config_digest
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError
from tests.ksmcluster.snapshot.test_load import page, snapshot

RELOCATE = "migration.relocate=[{kind='drain', nodes=[1], after_pass=2}, {kind='nearer', after_pass=1}]"
SIMULATED = {
    "plain": load("tiny"),
    "compacted": load("ksm-compaction", Overrides(3, settings=(RELOCATE,))),
}
COMPACTED = load_compaction(
    "compaction-drain",
    Overrides(
        4,
        settings=(
            "machine.memory_per_node=16MiB",
            "machine.unmovable=0.0002",
            "migration.relocate=[{kind='even-out', when='after'}]",
        ),
        drain=(1,),
    ),
)


@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulation_read_again_is_the_same(name: str, tmp_path: Path) -> None:
    made = ksmcluster.simulate(SIMULATED[name], engine="inline")
    made.save(tmp_path / "out")
    found = ksmcluster.load_result(tmp_path / "out")
    assert isinstance(found, Result)
    assert (found.config, found.summary) == (made.config, made.summary)
    assert str(found) == str(made)
    for table in ("passes", "processes", "mappings"):
        columns, again = getattr(made, table), getattr(found, table)
        assert list(again) == list(columns)
        assert all(np.array_equal(again[column], columns[column]) for column in columns)
    assert [tables.to_pydict() for tables in found.tables().values()] == [
        tables.to_pydict() for tables in made.tables().values()
    ]


def test_a_compaction_read_again_is_the_same(tmp_path: Path) -> None:
    made = ksmcluster.compact(COMPACTED, engine="inline")
    made.save(tmp_path / "out")
    found = ksmcluster.load_result(tmp_path / "out")
    assert isinstance(found, CompactionResult)
    assert (found.config, found.summary, str(found)) == (made.config, made.summary, str(made))
    assert {name: table.to_pydict() for name, table in found.tables().items()} == {
        name: table.to_pydict() for name, table in made.tables().items()
    }


@pytest.mark.parametrize("damage", ["empty", "no provenance", "not JSON"])
def test_what_is_no_output(damage: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if damage == "empty":
        out.mkdir()
    else:
        ksmcluster.simulate("tiny", engine="inline").save(out)
        if damage == "not JSON":
            (out / "summary.json").write_text("{")
        else:
            (out / "provenance.json").unlink()
    with pytest.raises(UserError, match="out: not an output of simulate or compact") as error:
        ksmcluster.load_result(out)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    ksmcluster.simulate("tiny", engine="inline").save(tmp_path / "out")
    (tmp_path / "out" / "summary.json").chmod(0)
    with pytest.raises(UserError, match="out: no permission to read it"):
        ksmcluster.load_result(tmp_path / "out")
    ksmcluster.sweep("tiny", {"nodes": [1]}, output=tmp_path / "sweep")
    (tmp_path / "sweep" / "plan.json").chmod(0)
    with pytest.raises(UserError, match="sweep: no permission to read it; ask its owner"):
        ksmcluster.load_sweep(tmp_path / "sweep")


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, wrong in (("gone", "no such directory"), ("file", "not a directory")):
        with pytest.raises(UserError, match=f"{name}: {wrong}; give that of an --output$"):
            ksmcluster.load_result(tmp_path / name)


def test_only_provenance_differs_between_equal_runs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        ksmcluster.simulate("tiny", engine="inline").save(tmp_path / name)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("first", "second")
    )
    assert [name for name in first if first[name] != second[name]] == ["provenance.json"]
    assert first.keys() == second.keys()


def test_provenance_says_what_differs_and_names_no_host(tmp_path: Path) -> None:
    ksmcluster.simulate("tiny", engine="inline").save(tmp_path / "out")
    text = (tmp_path / "out" / "provenance.json").read_text()
    found = json.loads(text)
    assert found["timing"]["engine"] == "inline"
    assert set(found["versions"]) >= {"ksmcluster", "python", "numpy"}
    assert set(found["host"]) == {"system", "release", "machine", "cpus"}


# Snapshots

ALIKE = [[page("a"), page("b")], [page("a"), page("c")]]


def test_the_path_of_a_snapshot_is_relative_and_found_again(tmp_path: Path) -> None:
    """The folder of both may move."""
    (tmp_path / "here").mkdir()
    made = ksmcluster.simulate(snapshot(tmp_path / "here" / "snap.parquet", ALIKE), engine="inline")
    made.save(tmp_path / "here" / "out")
    shutil.move(tmp_path / "here", tmp_path / "there")
    config = tomllib.loads((tmp_path / "there" / "out" / "config.toml").read_text())
    assert config["process"][0]["snapshot"] == "../snap.parquet"
    found = ksmcluster.load_result(tmp_path / "there" / "out")
    assert isinstance(found, Result)
    again = ksmcluster.simulate(found.config, engine="inline")
    assert again.summary == made.summary
    again.save(tmp_path / "there" / "out")


def test_a_path_without_a_folder_in_common_stays_absolute() -> None:
    assert relative_path("/data/snap.parquet", Path("/home/me/out")) == "/data/snap.parquet"
    assert relative_path("/home/me/snap.parquet", Path("/home/me/out")) == "../snap.parquet"


def test_the_digest_is_that_of_contents_not_of_paths(tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        process = {"name": "p", "count": 2, "snapshot": str(path)}
        machine = {"nodes": 1, "memory_per_node": "1MiB"}
        return config_digest(load({"machine": machine, "process": [process]}))

    first = snapshot(tmp_path / "first.parquet", ALIKE)
    copy = Path(shutil.copy(first, tmp_path / "copy.parquet"))
    assert digest(copy) == digest(first)
    snapshot(copy, [[page("a")], [page("b")]])
    assert digest(copy) != digest(first)
