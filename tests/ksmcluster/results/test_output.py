"""What a user may name as the directory of an output, and what is never lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ksmcluster
from ksmcluster import api
from ksmcluster.config import Overrides, load, load_compaction
from ksmcluster.results import directory as output
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.result import Result
from ksmcluster.snapshot import Snapshot, SnapshotWriter
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run, result_of

TABLES = ("passes", "processes", "mappings", "node_pairs")
FILES = {"summary.json", "provenance.json", "config.toml", *(f"{name}.parquet" for name in TABLES)}
FOREIGN = "it is not empty and not an earlier output; choose another directory"
WORKING = "it is the working directory; choose a directory in it"


@pytest.fixture(scope="module")
def compacted() -> CompactionResult:
    settings = ("machine.memory_per_node=16MiB",)
    return ksmcluster.compact(
        load_compaction("compaction-gpu", Overrides(1, settings=settings)), engine="inline"
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with things in it and above it that must not change."""
    working = tmp_path / "working"
    for directory in (tmp_path / "beside", working / "precious" / "deep", working / "empty"):
        directory.mkdir(parents=True)
    (working / "precious" / "thesis.tex").write_text("years")
    (working / "file").write_text("years")
    for name, target in {
        "to-precious": "precious",
        "to-file": "file",
        "to-working": ".",
        "loop": "pool",
        "pool": "loop",
    }.items():
        (working / name).symlink_to(target)
    monkeypatch.chdir(working)
    monkeypatch.setenv("HOME", str(working / "precious"))
    before = tree(tmp_path)
    yield working
    assert tree(tmp_path) == before


def tree(directory: Path) -> dict[Path, tuple[int, bytes]]:
    """All there is below, by path: what it is, and contents."""
    paths = sorted(directory.rglob("*"))
    return {p: (p.lstat().st_ino, p.read_bytes() if p.is_file() else b"") for p in paths}


REFUSED = {
    "nosuch/../precious": FOREIGN,
    "precious": FOREIGN,
    "precious/.": FOREIGN,
    "precious/": FOREIGN,
    "precious/deep/..": FOREIGN,
    "precious/nosuch/../../nosuch/../precious": FOREIGN,
    "to-precious": FOREIGN,
    "to-precious/nosuch/..": FOREIGN,
    "~": FOREIGN,
    "": WORKING,
    ".": WORKING,
    "nosuch/..": WORKING,
    "to-working": WORKING,
    "..": FOREIGN,
    "nosuch/../..": FOREIGN,
    "/": "it is a mount point; choose a directory in it",
    "/nosuch/../": "it is a mount point; choose a directory in it",
    "/proc": "it is a mount point; choose a directory in it",
    "file": "it is not a directory; choose another name",
    "to-file": "it is not a directory; choose another name",
    "loop": "it is not a directory; choose another name",
    "file/out": "file is not a directory; choose another one",
    "loop/out": "loop is not a directory; choose another one",
    "n" * 256: "File name too long",
}


@pytest.mark.parametrize(("named", "says"), REFUSED.items())
@pytest.mark.parametrize("command", ["simulate", "compact"])
def test_refused_before_the_simulation(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, command: str, named: str, says: str
) -> None:
    monkeypatch.setattr(api, command, lambda *_, **__: pytest.fail("has begun"))
    ran = run(command, "--output", named)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert says in ran.err


@pytest.mark.parametrize(("named", "says"), REFUSED.items())
def test_refused_when_saved(
    result: Result, compacted: CompactionResult, place: Path, named: str, says: str
) -> None:
    for made in (result, compacted):
        with pytest.raises(UserError, match=says):
            made.save(named)


def test_an_empty_working_directory_stays(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=WORKING):
        result.save(tmp_path)
    assert Path.cwd() == tmp_path


def test_a_working_directory_that_is_gone(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UserError, match="the working directory is gone; choose another directory"):
        result.save("out")


@pytest.mark.parametrize("named", ["nosuch/../out", "link", "out/.", "~/out", "empty/../out"])
def test_a_new_directory_by_any_name(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("out")
    for _ in range(2):
        result.save(named)
        assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "link", "out"}
    assert (tmp_path / "link").is_symlink()


# What an earlier output is


def put(name: str, text: str) -> Callable[[Path], object]:
    return lambda out: (out / name).write_text(text)


def edited_summary(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"config_digest": "blake3:0"}))


def directory_in_place_of_a_table(out: Path) -> None:
    (out / "passes.parquet").unlink()
    (out / "passes.parquet").mkdir()
    put("passes.parquet/thesis.tex", "years")(out)


def link_in_place_of_a_table(out: Path) -> None:
    (out / "passes.parquet").rename(out.parent / "passes.parquet")
    (out / "passes.parquet").symlink_to("../passes.parquet")


@pytest.mark.parametrize(
    "change",
    [
        put("thesis.tex", "years"),
        put(".hidden", "years"),
        put("config.toml", "# edited by hand"),
        put("summary.json", "[]"),
        put("summary.json", "{}"),
        put("summary.json", '{"schema_version": 2}'),
        put("summary.json", "not JSON"),
        put("nodes.parquet", "of the other command"),
        edited_summary,
        directory_in_place_of_a_table,
        link_in_place_of_a_table,
        lambda out: (out / "sub").mkdir(),
        lambda out: (out / "passes.parquet").unlink(),
        lambda out: (out / "config.toml").unlink(),
        lambda out: (out / "summary.json").unlink(),
    ],
)
def test_an_output_that_was_changed_stays(
    result: Result, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    out = tmp_path / "out"
    result.save(out)
    change(out)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=FOREIGN):
        result.save(out)
    assert tree(tmp_path) == before


def test_an_output_without_the_tables_that_it_may_lack_is_replaced(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result.save(out)
    for name in ("processes.parquet", "mappings.parquet", "node_pairs.parquet"):
        (out / name).unlink()
    result.save(out)
    assert {path.name for path in out.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == [out]


def test_a_name_that_is_not_utf_8(result: Result, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"b\xff\xfe")
    result.save(directory)
    result.save(directory)
    assert ksmcluster.load_result(directory).summary == result.summary
    snapshot = tmp_path / os.fsdecode(b"\xff.parquet")
    with pytest.raises(UserError, match="give --output a name in UTF-8"):
        SnapshotWriter(snapshot)
    snapshot.touch()
    with pytest.raises(UserError, match="give the snapshot a name in UTF-8"):
        Snapshot.open(snapshot)


@pytest.mark.parametrize(
    ("output", "checkpoint", "is_refused"),
    [("a", "a", True), ("a", "a/b", True), ("a", "a/b/c", True), ("a/b", "a", False), ("a", "b", False)],
)
def test_an_output_does_not_replace_the_checkpoints(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, checkpoint: str, is_refused: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--engine", "inline", "--quiet", "-o", output, "--checkpoint", checkpoint)
    ran = run("simulate", "tiny", *options)
    if is_refused:
        assert (ran.code, list(tmp_path.iterdir())) == (2, [])
        assert f"it would replace --checkpoint {checkpoint}" in ran.err
    else:
        assert (ran.code, ran.err) == (0, "")


def test_compact_has_no_table_of_processes(compacted: CompactionResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compacted.save(out)
    put("processes.parquet", "mine")(out)
    with pytest.raises(UserError, match=FOREIGN):
        compacted.save(out)


def test_outputs_of_compact_are_known_again(compacted: CompactionResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compacted.save(out)
    inode = out.stat().st_ino
    compacted.save(out)
    assert out.stat().st_ino != inode
    assert list(tmp_path.iterdir()) == [out]
    put("thesis.tex", "years")(out)
    with pytest.raises(UserError, match=FOREIGN):
        compacted.save(out)


def test_titles_in_any_script_are_known_again(tmp_path: Path) -> None:
    result = result_of(load("tiny", Overrides(settings=('simulation.title="Größe 大きさ"',))))
    for _ in range(2):
        result.save(tmp_path / "out")


# What happens meanwhile


def while_files_are_written(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    write = output._write_files

    def write_files(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        happens()

    monkeypatch.setattr(output, "_write_files", write_files)


@pytest.mark.parametrize("earlier", [False, True])
def test_what_comes_into_the_directory_while_files_are_written(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if earlier:
        result.save(out)
    before = tree(tmp_path)
    while_files_are_written(monkeypatch, lambda: put("thesis.tex", "years")(out))
    with pytest.raises(UserError, match=FOREIGN):
        result.save(out)
    assert (out / "thesis.tex").read_text() == "years"
    (out / "thesis.tex").unlink()
    assert tree(tmp_path) == before


def test_a_directory_that_somebody_makes_while_files_are_written(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "nosuch" / ".." / "out"
    monkeypatch.chdir(tmp_path)

    def make() -> None:
        Path("out").mkdir()
        put("thesis.tex", "years")(Path("out"))

    while_files_are_written(monkeypatch, make)
    with pytest.raises((OSError, UserError)):
        result.save(out)
    assert {path: found for path, (_, found) in tree(tmp_path).items()} == {
        tmp_path / "out": b"",
        tmp_path / "out" / "thesis.tex": b"years",
    }


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    "interrupt", [OSError(5, "Input/output error"), KeyboardInterrupt(), SystemExit(143)]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_earlier_output_survives_what_interrupts_its_replacement(
    result: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    interrupt: BaseException,
    when: str,
) -> None:
    """Either the earlier or the new output is whole, at each step, and nothing else is left."""
    out = tmp_path / "out"
    result.save(out)
    before, inode = tree(tmp_path), out.stat().st_ino
    steps = 0
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        nonlocal steps
        steps += 1
        if (steps, when) == (step, "before"):
            raise interrupt
        found = rename(self, target)
        if (steps, when) == (step, "after"):
            raise interrupt
        return found

    monkeypatch.setattr(Path, "rename", renamed)
    with pytest.raises(type(interrupt)):
        result.save(out)
    if (step, when) == (2, "after"):
        assert out.stat().st_ino != inode
        assert {path.name for path in out.iterdir()} == FILES
        assert list(tmp_path.iterdir()) == [out]
    else:
        assert tree(tmp_path) == before


def test_what_comes_into_an_earlier_output_as_it_is_removed_stays(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process might do that has it as its working directory."""
    out = tmp_path / "out"
    result.save(out)
    handle = os.open(out, os.O_DIRECTORY)
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if target == out:
            os.close(os.open("thesis.tex", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    result.save(out)
    os.close(handle)
    assert {path.name for path in out.iterdir()} == FILES
    (left,) = set(tmp_path.iterdir()) - {out}
    assert [path.name for path in left.iterdir()] == ["thesis.tex"]
