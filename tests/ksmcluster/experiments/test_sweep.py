"""Sweeps: every run is one of `simulate`; what is done is kept; failing points are rows."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import ksmcluster
from ksmcluster.config import Overrides, load, load_compaction
from ksmcluster.experiments.figures import figures
from ksmcluster.experiments.sweeps import journal, stored
from ksmcluster.experiments.sweeps.plan import RunKey
from ksmcluster.experiments.sweeps.run_one import RunDone
from ksmcluster.experiments.sweeps.sweep_result import load_sweep
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run
from tests.ksmcluster.snapshot.test_load import page, snapshot

PAGES = {"ksm.pages_to_scan": [100, 400]}


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "sweep.parquet").to_pylist()
    return found


def test_each_row_is_what_simulate_gives(tmp_path: Path) -> None:
    vary = {"ksm.max_page_sharing": [2, 256], "nodes": "2..3"}
    ksmcluster.sweep("tiny", vary, output=tmp_path / "out", seeds=2)
    found = rows(tmp_path / "out")
    keys = ("point", "seed", "ksm.max_page_sharing", "machine.nodes")
    points = [(2, 2), (2, 3), (256, 2), (256, 3)]
    assert [tuple(row[key] for key in keys) for row in found] == [
        (number, seed, *values) for number, values in enumerate(points, 1) for seed in (1, 2)
    ]
    for row in found:
        settings = (f"ksm.max_page_sharing={row['ksm.max_page_sharing']}",)
        config = load("tiny", Overrides(nodes=row["machine.nodes"], seed=row["seed"], settings=settings))
        alone = ksmcluster.simulate(config, engine="inline")
        assert row["error"] is None
        assert {name: row[name] for name in figures(alone)} == figures(alone)


def test_figures_have_units(tmp_path: Path) -> None:
    table = ksmcluster.sweep("tiny", PAGES).to_arrow()
    units = json.loads(table.schema.metadata[b"units"])
    assert (units["saved_bytes"], units["ksmd_cpu_seconds"], units["pages_shared"]) == ("bytes", "s", "pages")
    assert table.schema.field("saved_bytes").metadata == {b"unit": b"bytes"}
    assert json.loads(table.schema.metadata[b"keys"]) == ["ksm.pages_to_scan"]
    assert set(units) == set(table.column_names) - {"point", "seed", "ksm.pages_to_scan", "error"}


def test_ksmd_cpu_percent_is_its_part_of_simulated_time() -> None:
    (record,) = ksmcluster.sweep("tiny").records
    found = record.figures
    cpu, simulated = found["ksmd_cpu_seconds"], found["simulated_seconds"]
    assert cpu is not None and simulated is not None
    assert found["ksmd_cpu_percent"] == 100 * cpu / simulated


def test_a_row_for_each_pass() -> None:
    table = ksmcluster.sweep("tiny", PAGES, passes_rows=True).to_arrow().to_pylist()
    alone = ksmcluster.simulate(load("tiny", Overrides(settings=("ksm.pages_to_scan=400",))), engine="inline")
    passes = alone.summary["passes"]
    assert [(row["point"], row["pass"]) for row in table] == [
        (point, number) for point in (1, 2) for number in range(1, passes + 1)
    ]
    second = table[passes:]
    assert [row["by_pass.saved_bytes"] for row in second] == alone.summary["by_pass"]["saved_bytes"]
    shared = alone.by_node("pages_shared").sum(axis=1).tolist()
    assert [row["by_pass.pages_shared"] for row in second] == shared
    assert {row["saved_bytes"] for row in second} == {alone.summary["derived"]["saved_bytes"]}


def test_compact() -> None:
    small = Overrides(1, settings=("machine.memory_per_node=16MiB",))
    found = ksmcluster.sweep("compaction-gpu", {"migration.order": [3, 9]}, overrides=small)
    for row, order in zip(found.to_arrow().to_pylist(), (3, 9), strict=True):
        settings = (*small.settings, f"migration.order={order}")
        alone = ksmcluster.compact(
            load_compaction("compaction-gpu", Overrides(1, settings=settings)), engine="inline"
        )
        assert row["obtained.movable_on"] == alone.summary["obtained"]["movable_on"]
        assert row["free_blocks.before[0]"] == alone.summary["free_blocks"]["before"][0]
        assert row["by_driver.lru.moved"] == alone.summary["by_driver"]["lru"]["moved"]
    with pytest.raises(UserError, match="--passes-rows is for scenarios of `simulate`"):
        ksmcluster.sweep("compaction-gpu", overrides=small, passes_rows=True)


def test_snapshots(tmp_path: Path) -> None:
    file = snapshot(tmp_path / "snap.parquet", [[page("a"), page("b")], [page("a"), page("c")]])
    found = ksmcluster.sweep(file, {"count": [1, 2, 4], "nodes": [1]})
    saved = [row["saved_bytes"] for row in found.to_arrow().to_pylist()]
    assert saved == [0, 4096, 3 * 4096]


def test_jobs_give_the_same(tmp_path: Path) -> None:
    vary = {"ksm.pages_to_scan": "100..400x2"}
    for jobs in (1, 2):
        ksmcluster.sweep("tiny", vary, output=tmp_path / str(jobs), jobs=jobs)
    one, two = (rows(tmp_path / str(jobs)) for jobs in (1, 2))
    assert one == two
    files = [(tmp_path / str(jobs) / "sweep.parquet").read_bytes() for jobs in (1, 2)]
    assert files[0] == files[1]


def test_a_worker_that_dies_fails_its_point_alone(tmp_path: Path) -> None:
    """A driver that kills its process."""
    (tmp_path / "killer.py").write_text(KILLER)
    program = (
        "import ksmcluster, sys\n"
        "if __name__ == '__main__':\n"
        "    small = ksmcluster.Overrides(1, settings=('machine.memory_per_node=16MiB',\n"
        '        \'driver=[{name="d", kind="killer:Killer", share=0.5}]\'))\n'
        "    vary = {'driver[0].settings.deadly': [False, True, False]}\n"
        "    found = ksmcluster.sweep('compaction-gpu', vary, overrides=small, jobs=2)\n"
        "    print([bool(record.error) for record in found.records], found.records[1].error)\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.startswith("[False, True, False] its process was killed"), ran.stderr


KILLER = """
import multiprocessing, os, signal
from cluster.compaction.drivers.balloon import Balloon

class Killer(Balloon):
    def __init__(self, memory, deadly=False):
        super().__init__(memory)
        self.deadly = deadly

    def allocate(self, pages):
        # Not as the scenario is checked, in the first process.
        if self.deadly and multiprocessing.parent_process() is not None and pages > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().allocate(pages)
"""


# Points that fail


def test_a_failing_point_is_a_row(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("sweep", "tiny", "--vary", "ksm.max_page_sharing=1,256", "--output", str(out), "--quiet")
    assert ran.code == 1
    assert ran.err == "error: 1 of 2 runs failed\n"
    first, second = rows(out)
    assert first["error"] == "ksm.max_page_sharing: must be at least 2, not 1"
    assert first["saved_bytes"] is None
    assert second["error"] is None
    assert second["saved_bytes"] > 0
    assert "point 1 (ksm.max_page_sharing=1): ksm.max_page_sharing: must be at least 2" in ran.out


def test_a_run_without_room_fails_alone() -> None:
    """What is found out only as the point runs: the memory of this host."""
    found = ksmcluster.sweep("tiny", {"nodes": [1], "pages_per_node": [64, 10**13]})
    assert [bool(record.error) for record in found.records] == [False, True]


def test_a_scenario_that_is_wrong_everywhere_is_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("sweep", "tiny", "--vary", "ksm.page_to_scan=1,2", "--output", str(out))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == 'error: --vary ksm.page_to_scan: unknown key; did you mean "pages_to_scan"?\n'
    assert not out.exists()


def test_an_error_of_the_program_fails_its_point_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate = ksmcluster.api.run

    def run(scenario: Any, *rest: Any, **others: Any) -> Any:
        if scenario.ksm.pages_to_scan == 100:
            raise ZeroDivisionError("by zero")
        return simulate(scenario, *rest, **others)

    monkeypatch.setattr(ksmcluster.api, "run", run)
    found = ksmcluster.sweep("tiny", PAGES)
    assert [record.error for record in found.records] == ["ZeroDivisionError: by zero", ""]


# Interrupted, and resumed

LARGE = ["--vary", "ksm.pages_to_scan=100..800x2", "--seeds", "3", "--set", "simulation.passes=40"]


def started(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "ksmcluster.cli",
        "sweep",
        "tiny",
        *LARGE,
        "--output",
        str(out),
        *options,
    ]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_line(process: subprocess.Popen[str], begins: str) -> None:
    assert process.stderr
    while not (line := process.stderr.readline()).startswith(begins):
        assert line or process.poll() is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of the sweep that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with started(out, "--quiet") as process:
        assert process.wait() == 0
    return (out / "sweep.parquet").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_done_before_a_kill_is_kept(
    tmp_path: Path, whole: bytes, number: signal.Signals, jobs: int
) -> None:
    out = tmp_path / "out"
    with started(out, "--jobs", str(jobs), "--limit", "ksmd_cpu_percent<=5") as process:
        wait_for_line(process, "run 3 of 12")
        if number == signal.SIGKILL:
            process.kill()  # alone: its workers end because it does
        else:
            os.killpg(process.pid, number)
        assert process.wait() == (-9 if number == signal.SIGKILL else 128 + number)
        rest = process.stderr.read() if process.stderr else ""
    done = stored.read_records(out)
    assert 3 <= len(done) < 12
    assert load_sweep(out).wanted.limits == ("ksmd_cpu_percent<=5",)
    if number != signal.SIGKILL:
        assert len(rows(out)) == len(done)
        assert "continue with --resume" in rest
        assert rest.splitlines()[-1].startswith(("interrupted", "terminated", "hung up"))
        assert "Traceback" not in rest
        assert "Warning" not in rest
    stamps = {key: record.wall_seconds for key, record in done.items()}
    with started(out, "--resume", "--quiet", "--jobs", str(jobs)) as process:
        assert process.wait() == 0
    assert (out / "sweep.parquet").read_bytes() == whole
    again = stored.read_records(out)
    assert {key: again[key].wall_seconds for key in stamps} == stamps  # not run again
    assert gone(process.pid)


def gone(group: int) -> bool:
    """Whether no process of the group is left; workers take a moment to see that their parent has ended."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_full_disk_is_no_mistake(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = run("sweep", "tiny", "--vary", "nodes=1,2", "--output", str(tmp_path / "out"), "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("No space left on device; make room and continue with --resume\n")


def test_what_python_may_give_in_a_wrong_form() -> None:
    with pytest.raises(UserError, match="resume: give the output of the sweep"):
        ksmcluster.sweep("tiny", {"nodes": [1]}, resume=True)
    with pytest.raises(UserError, match="vary 'nodes': give a list of values"):
        ksmcluster.sweep("tiny", {"nodes": 2})  # type: ignore[dict-item]
    made = ksmcluster.sweep("tiny", {"nodes": [1, 2]}, limits="ksmd_cpu_percent<=100")
    assert made.choose() == made.choose(limits=["ksmd_cpu_percent<=100"])
    assert made.choose(limits="ksmd_cpu_percent<=0").recommended is None


def test_a_half_written_line_is_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out)
    table = (out / "sweep.parquet").read_bytes()
    lines = (out / "runs.jsonl").read_bytes()
    (out / "runs.jsonl").write_bytes(lines[:-20])
    assert list(stored.read_records(out)) == [RunKey(1, 1)]
    seen: list[RunDone] = []
    ksmcluster.sweep("tiny", PAGES, output=out, resume=True, progress=seen.append)
    assert [(done.done, done.total, done.record.key) for done in seen] == [(2, 2, RunKey(2, 1))]
    assert (out / "sweep.parquet").read_bytes() == table


def test_failed_runs_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ksmcluster.api, "run", lambda *_, **__: 1 / 0)
        assert len(ksmcluster.sweep("tiny", PAGES, output=out).failed) == 2
    found = ksmcluster.sweep("tiny", PAGES, output=out, resume=True)
    assert found.failed == []
    assert [row["error"] for row in rows(out)] == [None, None]


def test_to_resume_what_is_not_there_is_to_begin(tmp_path: Path) -> None:
    found = ksmcluster.sweep("tiny", PAGES, output=tmp_path / "out", resume=True)
    assert len(found.records) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vary": {"ksm.pages_to_scan": [100]}}, "of other points"),
        ({"vary": {"ksm.sleep_millisecs": [100, 400]}}, "of other points"),
        ({"scenario": "default"}, "of another scenario"),
        ({"overrides": Overrides(passes=2)}, "of another scenario"),
        ({"seeds": 2}, "with other seeds"),
        ({"passes_rows": True}, "with or without --passes-rows"),
    ],
)
def test_another_sweep_is_not_resumed(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(UserError, match=rf"--resume: .*out has another sweep \({says}\)") as error:
        ksmcluster.sweep(**{"scenario": "tiny", "vary": PAGES, "output": out, "resume": True} | change)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_another_snapshot_under_the_same_name_is_another_sweep(tmp_path: Path) -> None:
    file = snapshot(tmp_path / "snap.parquet", [[page("a")], [page("a")]])
    ksmcluster.sweep(file, {"nodes": [1]}, output=tmp_path / "out")
    snapshot(file, [[page("a")], [page("b")]])
    with pytest.raises(UserError, match="of another scenario"):
        ksmcluster.sweep(file, {"nodes": [1]}, output=tmp_path / "out", resume=True)


def test_directories_that_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out)
    with pytest.raises(UserError, match="out contains a sweep: continue with --resume"):
        ksmcluster.sweep("tiny", PAGES, output=out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years")
    for resume in (False, True):
        with pytest.raises(UserError, match="not empty and not a sweep"):
            ksmcluster.sweep("tiny", PAGES, output=tmp_path / "other", resume=resume)
    with pytest.raises(UserError, match="cannot write to"):
        ksmcluster.sweep("tiny", PAGES, output=tmp_path / "other" / "thesis.tex" / "x")
    plan = stored.read_plan(out)
    with (
        journal.opened(out, plan, resume=True),
        pytest.raises(UserError, match="another process is running the sweep in"),
        journal.opened(out, plan, resume=True),
    ):
        pass


def test_a_sweep_read_again_is_the_same(tmp_path: Path) -> None:
    made = ksmcluster.sweep("tiny", PAGES, output=tmp_path / "out", seeds=2)
    found = ksmcluster.load_sweep(tmp_path / "out")
    assert (found.records, str(found)) == (made.records, str(made))
    assert found.to_arrow().equals(pq.read_table(tmp_path / "out" / "sweep.parquet"))
    with pytest.raises(UserError, match="not a sweep"):
        ksmcluster.load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("plan.json", "[" * 100_000, "not a sweep (plan.json: Invalid JSON: recursion limit exceeded"),
        ("plan.json", '{"points": []}', "not a sweep (plan.json: schema_version: is missing); give the"),
        ("plan.json", "9" * 5000, "not a sweep (plan.json: "),
        ("runs.jsonl", "[" * 100_000 + "\n", "runs.jsonl, line 1: Invalid JSON: recursion limit exceeded"),
        ("runs.jsonl", '{"point": 1, "seed": "1"}\n', "runs.jsonl, line 1: seed: "),
        ("runs.jsonl", None, "runs.jsonl: not a regular file"),
        ("plan.json", None, "not a sweep (plan.json: not a regular file)"),
    ],
)
def test_files_of_something_else_are_refused_in_one_line(
    run: Run, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out, passes=1)
    (out / name).unlink()
    if text is None:
        os.mkfifo(out / name)
    else:
        (out / name).write_text(text)
    ran = run("compare", str(out), str(out))
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert ran.err.startswith(f"error: {out}: {says}")


def test_too_large_files_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out, passes=1)
    os.truncate(out / "plan.json", 1 << 40)
    with pytest.raises(UserError, match="1,099,511,627,776 bytes are too many; 1,073,741,824 at most"):
        ksmcluster.load_sweep(out)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    ksmcluster.sweep("tiny", PAGES, output=out, passes=1)
    os.truncate(out / "runs.jsonl", 1 << 30)
    monkeypatch.setattr(stored, "MOST_JSON", 1 << 20)
    with pytest.raises(UserError, match=r"runs.jsonl: line 3 has more than 1,048,576 bytes; choose another"):
        ksmcluster.load_sweep(out)


def test_values_beyond_the_limits_fail_alone(run: Run, tmp_path: Path) -> None:
    vary = ["--vary", "ksm.pages_to_scan=100,99999999999999999999", "--passes", "1", "--quiet"]
    ran = run("sweep", "tiny", *vary, "--output", str(tmp_path / "out"))
    assert (ran.code, ran.err) == (1, "error: 1 of 2 runs failed\n")
    assert [row["ksm.pages_to_scan"] for row in rows(tmp_path / "out")] == ["100", "99999999999999999999"]


# What to make of it


def test_the_table_marks_the_front_and_the_best(run: Run, tmp_path: Path) -> None:
    """Fast or slow, all is merged in the end; a point that wakes up less often takes less of a CPU."""
    ran = run(
        *("sweep", "tiny", "--vary", "ksm.sleep_millisecs=1,20,500", "--output", str(tmp_path / "out")),
        *(
            "--objectives",
            "saved_bytes:max,simulated_seconds:min",
            "--limit",
            "ksmd_cpu_percent<=1",
            "--quiet",
        ),
    )
    assert (ran.code, ran.err) == (0, "")
    percents = [row["ksmd_cpu_percent"] for row in rows(tmp_path / "out")]
    best = next(number for number, percent in enumerate(percents, 1) if percent <= 1)
    lines = [line.split() for line in ran.out.splitlines()]
    table = {line[0]: line for line in lines if line and line[0] in "123"}
    assert table["1"][-1] == "*"  # the fastest is on the front, but beyond the limit
    assert best > 1
    assert table[str(best)][-1] == "best"
    assert f"Recommended within ksmd_cpu_percent<=1: point {best}" in " ".join(ran.out.split())
    knobs = run(
        "knobs",
        str(tmp_path / "out"),
        "--limit",
        "ksmd_cpu_percent<=1",
        "--objectives",
        "simulated_seconds:min",
    )
    assert f"# point {best} of" in knobs.out
    assert run("knobs", str(tmp_path / "out")).out == knobs.out  # the sweep was given the same
    fastest = run("knobs", str(tmp_path / "out"), "--limit", "ksmd_cpu_percent<=100")
    assert "# point 1 of" in fastest.out


LATE_WRITES = """
[machine]
nodes = 1
memory_per_node = "16MiB"
[[process]]
name = "rank"
per_node = 2
[[process.region]]
name = "data"
size = "1000 pages"
model = "replicated"
[[process.region.write]]
rate = 0.1
start = 3
"""


def test_notes_name_their_points(run: Run, tmp_path: Path) -> None:
    """Six passes over 2,000 pages: with 1,000 at a time, they end before the writes begin."""
    file, out = tmp_path / "late.toml", tmp_path / "out"
    file.write_text(LATE_WRITES)
    ran = run(
        "sweep", str(file), "--vary", "ksm.pages_to_scan=1000,100,2000", "--output", str(out), "--quiet"
    )
    said = " ".join(ran.out.split("\nNotes\n")[1].split())
    assert re.findall(r"(points? [\d, to]+): rank, data: writes begin at 3.0 s", said) == [
        "point 1",
        "point 3",
    ]
    found = load_sweep(out)
    assert [len(outcome.notes) for outcome in found.outcomes] == [1, 0, 1]
    assert "writes begin at 3.0 s" in found.records[2].notes[0]
    assert run("report", str(out), "-o", str(tmp_path / "page.html")).code == 0
    assert "point 3: rank, data: writes begin" in (tmp_path / "page.html").read_text()


def test_a_note_of_all_points_names_none() -> None:
    found = ksmcluster.sweep("default", {"ksm.pages_to_scan": [2000, 2000]}, overrides=Overrides(nodes=1))
    assert {len(outcome.notes) for outcome in found.outcomes} == {1}
    assert re.search(r"\nNotes\n  rank, library-data: writes begin", str(found))


def test_a_table_in_a_file_is_as_wide_as_it_needs(run: Run, tmp_path: Path) -> None:
    ran = run(
        *("sweep", "default", "--nodes", "2", "--pages-per-node", "512", "--seeds", "2", "--quiet"),
        *("--vary", "ksm.pages_to_scan=10,20", "--vary", "ksm.max_page_sharing=2,16"),
        *("--output", str(tmp_path / "out")),
    )
    table = ran.out.split("\n\n")[1].splitlines()
    assert sum(line.split()[0].isdecimal() for line in table) == 4
    assert all(line.count("±") > 0 for line in table if line.split()[0].isdecimal())


def test_wrong_figures_are_named_after_the_first_run(run: Run, tmp_path: Path) -> None:
    ran = run(
        *("sweep", "tiny", "--vary", "ksm.pages_to_scan=100,200,400", "--output", str(tmp_path / "out")),
        *("--limit", "ksmd_cpu_percentage<=5", "--quiet"),
    )
    assert (ran.code, ran.out) == (2, "")
    assert 'no figure ksmd_cpu_percentage; did you mean "ksmd_cpu_percent"?' in ran.err
    assert len(stored.read_records(tmp_path / "out")) == 1


def test_seeds_give_means_and_noise() -> None:
    found = ksmcluster.sweep("default", {"nodes": [2]}, seeds=3, overrides=Overrides(pages_per_node=512))
    (outcome,) = found.outcomes
    values = [record.figures["bytes_sent"] for record in found.records]
    assert len(set(values)) == 3
    assert outcome.means["bytes_sent"] == sum(values) / 3  # type: ignore[arg-type]
    assert outcome.noise["bytes_sent"] > 0
    assert "3 seeds each" in str(found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--vary", "ksm.run"), "--vary ksm.run: not of the form"),
        (("--points", "p.csv", "--vary", "ksm.run=1"), "--points: the file defines all points"),
        (("--jobs", "0"), "--jobs: must be at least 1"),
        (("--limit", "a"), "--limit a: not of the form"),
        (("--objectives", "a"), "--objectives a: not of the form"),
        (("--address", "auto"), "--address: the inline engine does not use Ray"),
        (("--vary", "engine=steam"), "no engine 'steam'"),
        (("--vary", "simulation.title=a,\udcff"), r"--vary simulation.title: '\udcff' is not UTF-8"),
        (("--vary", "engine=ray", "--vary", "nodes_per_actor=0"), "nodes_per_actor: must be a whole number"),
    ],
)
def test_mistakes_are_one_line(run: Run, tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    ran = run("sweep", "tiny", "--output", str(tmp_path / "out"), *options)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert says in ran.err
    assert not (tmp_path / "out").exists()


def test_a_sweep_shows_itself() -> None:
    found = ksmcluster.sweep("tiny", {"ksm.max_page_sharing": [1, 256]}, limits=["ksmd_cpu_percent<=5"])
    assert repr(found) == "<SweepResult: 2 points, 2 runs, 1 failed>"
    assert found.to_pandas()["saved_bytes"].isna().tolist() == [True, False]
    cell = found._repr_html_()
    assert "Point 2 (ksm.max_page_sharing=256) is recommended within ksmd_cpu_percent&lt;=5: " in cell
    assert "must be at least 2, not 1" in cell
