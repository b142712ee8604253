"""Whatever users give ends in a result or in an error of ours, never in another one."""

from __future__ import annotations

import json
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.checkpoint.directory import latest
from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import Event, PassStarted
from cluster.script.parser import ScriptError, parse
from cluster.spec.errors import SimulationError
from cluster.spec.profile import PROFILES
from ksmcluster import Overrides, compare, load, load_result, resume, simulate, sweep
from ksmcluster.api.checkpoints import checkpointed
from ksmcluster.bench.tools.tracker import read_baseline
from ksmcluster.capture.core import CoreSource
from ksmcluster.config import load_compaction, resolved_toml, to_spec
from ksmcluster.config.compaction import to_compaction_spec
from ksmcluster.experiments.sweeps.axes import overrides_of, read_points
from ksmcluster.report.html.sweep_page import sweep_sections
from ksmcluster.report.saved_runs import read_outputs
from ksmcluster.snapshot.load import load_pages
from ksmcluster.snapshot.schema import METADATA_KEY
from ksmcluster.system.errors import UserError
from ksmcluster.validate.replay import ReplayError, ReplayTarget, compare_records, replay_script
from tests.actors.checkpoint.forged import rewrite
from tests.fuzz.hostile import ESCAPE, FUZZ, damaged, refused, spoilt
from tests.ksmcluster.capture.test_core import PAGE, A, B, files, make_core, note, prpsinfo
from tests.ksmcluster.snapshot.test_load import page, snapshot

SCENARIO = tomllib.loads(resolved_toml(load("tiny")))
COMPACTION = tomllib.loads(resolved_toml(load_compaction("compaction-drain")))
SCRIPT = "proc A\nmap A x 8\nfill A x 0 8 mod 1 2\nmergeable A x\nscan 2\nfork A B\nexit A\nrecord end\n"
EXACT = ReplayTarget("exact")
CHECKPOINTED = load("tiny", Overrides(passes=3, pages_per_node=64))


@FUZZ
@given(spoilt(SCENARIO))
@example(SCENARIO | {"machine": {"nodes": 2, "memory_per_node": "1MiB", "topology": {"remote": 2**62}}})
def test_scenarios(data: Any) -> None:
    with refused(UserError):
        to_spec(load(data))


@FUZZ
@given(spoilt(COMPACTION))
def test_scenarios_of_compaction(data: Any) -> None:
    with refused(UserError):
        to_compaction_spec(load_compaction(data))


@FUZZ
@given(
    st.text() | st.lists(st.sampled_from(["[", "]", "{", "a", ".", "=", '"', "\n", "1", ","])).map("".join)
)
@example("a = " + "[" * 100_000)
@example(".".join("a" * 100_000) + " = 1")
@example("[" + ".".join("a" * 100_000) + "]")
@example("a = " + "9" * 5000)
@example(f"a = 0x{'f' * 5000}")
def test_texts_of_scenarios(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused(UserError):
        load(file)


@FUZZ
@given(st.sampled_from(["ksm.run", "machine.nodes", "process[0].region[0].size", "x"]), st.text())
@example("ksm.run", "[" * 50_000 + "]" * 50_000)
@example(".".join("a" * 50_000), "1")
@example("process[" + "9" * 5000 + "].count", "1")
@example("ksm.run", "9" * 5000)
@example("process[0].region[0].size", "0\n\n0")
def test_overrides(key: str, text: str) -> None:
    with refused(UserError):
        load("tiny", Overrides(settings=(f"{key}={text}",)))


words = st.sampled_from([*SCRIPT.split(), "\n", "\n", "unmap", "batch", "set", "0", str(2**64), ESCAPE])


@FUZZ
@given(st.lists(words, max_size=40).map(" ".join))
def test_scripts(text: str) -> None:
    with refused(ScriptError):
        parse(text)


@FUZZ
@given(st.data())
def test_records(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a.scn").write_text(SCRIPT)
    record = replay_script("a", folder / "a.scn", EXACT, PROFILES["6.18"], None)
    changed = data.draw(spoilt(record))
    (folder / "a.json").write_text(json.dumps(changed))
    with refused(ReplayError):
        list(compare_records("a", folder / "a.json", EXACT))


@FUZZ
@given(spoilt([{"name": "a", "unit": "x", "value": 1.0, "range": "", "extra": ""}]))
def test_baselines(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a.json"
    file.write_text(json.dumps(document))
    with refused(UserError):
        read_baseline(file)


CORE = make_core(
    (0x10000, 4 * PAGE, A + B + A),
    (0x30000, PAGE, B),
    notes=prpsinfo(7, b"p") + note(6, bytes(32)) + files(PAGE, (0x30000, 0x31000, b"/x")),
)


@FUZZ
@given(damaged(CORE[:1024]))
def test_cores(tmp_path_factory: pytest.TempPathFactory, head: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "core"
    file.write_bytes(head + CORE[len(head) :])
    with refused(UserError):
        source = CoreSource(file)
        try:
            assert sum(len(chunk.vpn) for chunk in source.scan(True).chunks) <= len(CORE) // PAGE * 8
        finally:
            source.close()


@FUZZ
@given(st.data())
def test_snapshots(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a.parquet"
    snapshot(file, [[page("a"), page("b"), page("0")], [page("a")]], [[page("b")], []])
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    else:
        table, said = pq.read_table(file), pq.read_metadata(file).metadata[METADATA_KEY]
        described = data.draw(spoilt(json.loads(said)))
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(described)}), file)
    with refused(UserError):
        load(file)
        load_pages([str(file)])


@cache
def swept() -> dict[str, bytes]:
    """The files of a sweep, by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        sweep("tiny", {"ksm.pages_to_scan": [100, 200]}, output=out, passes=1, pages_per_node=64)
        return {path.name: path.read_bytes() for path in out.iterdir()}


@FUZZ
@given(st.data())
def test_sweeps(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Files of a sweep that are damaged, or well-formed and of something else."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "out").mkdir()
    files = dict(swept())
    name = data.draw(st.sampled_from(["plan.json", "runs.jsonl", "provenance.json"]))
    first, *rest = files[name].splitlines(keepends=True) if name == "runs.jsonl" else [files[name]]
    if data.draw(st.booleans()):
        first = data.draw(damaged(first))
    else:
        first = json.dumps(data.draw(spoilt(json.loads(first)))).encode() + b"\n"
    files[name] = b"".join([first, *rest])
    for name, content in files.items():
        (folder / "out" / name).write_bytes(content)
    with refused(UserError):
        runs, (saved,) = read_outputs([folder / "out"])
        assert not runs
        saved.result.to_arrow()
        assert str(saved.result)
        assert sweep_sections(saved.result)
    with refused(UserError):
        compare(folder / "out", folder / "out")


@cache
def simulated() -> dict[str, bytes]:
    """The files of an output of simulate, by name."""
    with tempfile.TemporaryDirectory() as folder:
        simulate("tiny", engine="inline", passes=2, pages_per_node=64).save(Path(folder) / "out")
        return {path.name: path.read_bytes() for path in (Path(folder) / "out").iterdir()}


@FUZZ
@given(st.data())
def test_outputs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "out"
    folder.mkdir()
    files = dict(simulated())
    name = data.draw(st.sampled_from(sorted(files)))
    files[name] = data.draw(damaged(files[name]))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with refused(UserError):
        load_result(folder)


CELLS = ["ksm.run", "1", "2", "nodes", "x", "machine.nodes"]


def checkpoint(folder: Path) -> Path:
    """The last checkpoint of a run of three passes."""
    simulate(CHECKPOINTED, engine="inline", checkpoint=str(folder), checkpoint_every="1p")
    found = latest(folder)
    assert found is not None
    return found.folder


@cache
def checkpoint_files() -> dict[str, bytes]:
    """The files of a checkpoint, by name."""
    with tempfile.TemporaryDirectory() as directory:
        return {path.name: path.read_bytes() for path in checkpoint(Path(directory)).iterdir()}


def checkpointed_in(directory: Path) -> Path:
    """Write a checkpoint into a directory; return its folder."""
    folder = directory / "step-000002"
    folder.mkdir()
    for name, content in checkpoint_files().items():
        (folder / name).write_bytes(content)
    return folder


@FUZZ
@given(st.data())
def test_checkpoints(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    folder, name = checkpointed_in(directory), "manifest.json"
    rewrite(folder, name, data.draw(spoilt(json.loads((folder / name).read_text()))))
    with refused(UserError):
        checkpointed(directory)
        resume(directory, engine="inline")


class StartedError(Exception):
    """The state is restored, and the first pass begins."""


@FUZZ
@given(st.data())
def test_forged_states(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Of checkpoints whose digests are right; what they hold may be anything that a run can begin with."""
    directory = tmp_path_factory.mktemp("fuzz")
    folder = checkpointed_in(directory)
    name = data.draw(st.sampled_from(["node-0.json", "simulation.json", "passes.json"]))
    rewrite(folder, name, data.draw(spoilt(json.loads((folder / name).read_text()))))

    def on_event(event: Event) -> None:
        if isinstance(event, PassStarted):
            raise StartedError("started")

    with refused(SimulationError, StartedError):
        keeper = CheckpointKeeper(directory, {}, Interval())
        list(run_passes(to_spec(CHECKPOINTED), INLINE, checkpoints=keeper, on_event=on_event))


@FUZZ
@given(st.lists(st.lists(st.sampled_from(CELLS) | st.text(max_size=5), max_size=3)))
def test_points_of_sweeps(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a.csv"
    file.write_bytes("\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass"))
    with refused(UserError):
        for point in read_points(file):
            load("tiny", overrides_of(point.settings, Overrides()))
