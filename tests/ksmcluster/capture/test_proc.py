"""Live processes: which pages are taken, stopping, ending, permissions."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmcluster.capture.hashing import load_key
from ksmcluster.capture.process import ProcessSource, stopped
from ksmcluster.capture.select import Wanted
from ksmcluster.capture.session import Options, Session, Summary
from ksmcluster.snapshot import FILE, MERGEABLE, SHARED_ZERO, Snapshot
from ksmcluster.system.errors import UserError

COMMAND = (
    "import os, sys, ksmcluster.commands.capture; from ksmcluster.cli import main;"
    "sys.argv.insert(1, 'capture');"
)


def contents(
    snapshot: Snapshot, first: int, pages: int, moment: int = 0, *, all_pages: bool = False
) -> dict[int, int]:
    """Contents of a region's pages, by their number within the region."""
    vpn, content = snapshot.pages(0, moment, all_pages=all_pages)
    assert bool(np.all(vpn[1:] > vpn[:-1]))
    inside = (vpn >= first) & (vpn < first + pages)
    return dict(zip((vpn[inside] - np.uint64(first)).tolist(), content[inside].tolist(), strict=True))


def take(child: Any, output: Path, advance: Callable[[int], None], **options: Any) -> Summary:
    source = ProcessSource(child.pid)
    try:
        return Session([source], Options(output, *load_key(None, False), **options), advance).run()
    finally:
        source.close()


def test_known_pages(child: Any, summary: Any, tmp_path: Path) -> None:
    found = summary("--pid", child.pid, "--output", tmp_path / "s", "--stop")
    with Snapshot.open(tmp_path / "s") as snapshot:
        known = contents(snapshot, child.vpn["known"], 16)
        large = contents(snapshot, child.vpn["large"], 1024)
        copied = contents(snapshot, child.vpn["copied"], 3)
        (process,) = snapshot.processes
        vpn, content = snapshot.pages(0)
    assert sorted(known) == list(range(9))
    assert len({known[page] for page in range(4)}) == 1
    assert len({known[page] for page in range(3, 7)}) == 4
    assert known[7] == known[8] == 0
    assert len(set(large.values())) == len(large) == 1024
    assert copied == {1: known[0]}

    assert process.pid == child.pid
    assert process.source == "process"
    assert process.name.startswith("python")
    assert any(m.name == "[stack]" and m.private_anonymous for m in process.mappings)
    assert any(m.name.endswith("mapped") and not m.private_anonymous for m in process.mappings)
    (moment,) = found["moments"]
    assert moment["pages"] == moment["mergeable_pages"] == len(vpn)
    assert moment["zero_pages"] == int((content == 0).sum())
    assert moment["distinct_contents"] == len(set(content.tolist()))
    assert moment["duplicate_pages"] == len(vpn) - len(set(content.tolist()))
    assert (found["processes"], found["vanished_pages"], found["ended"]) == (1, 0, [])
    assert found["memory_bytes"] == len(vpn) * 4096
    assert found["file_bytes"] == (tmp_path / "s").stat().st_size
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    child.tell("write")


def test_pages_lie_in_mappings(child: Any, summary: Any, tmp_path: Path) -> None:
    summary("--pid", child.pid, "--output", tmp_path / "s", "--all-pages")
    with Snapshot.open(tmp_path / "s") as snapshot:
        mappings = snapshot.processes[0].mappings
        vpn, _ = snapshot.pages(0, all_pages=True)
    assert all(a.end_vpn <= b.start_vpn for a, b in pairwise(mappings))
    covered = np.concatenate([np.arange(m.start_vpn, m.end_vpn, dtype=np.uint64) for m in mappings])
    assert bool(np.isin(vpn, covered).all())


def test_all_pages_are_told_apart(child: Any, summary: Any, tmp_path: Path) -> None:
    summary("--pid", child.pid, "--output", tmp_path / "s", "--all-pages", "--stop")
    with Snapshot.open(tmp_path / "s") as snapshot:
        for region, pages, mergeable, others in (
            ("shared", 2, [], [0, 1]),
            ("copied", 3, [1], [0]),
        ):
            first = child.vpn[region]
            assert sorted(contents(snapshot, first, pages)) == mergeable
            assert set(contents(snapshot, first, pages, all_pages=True)) >= {*mergeable, *others}
    flags = {}
    source = ProcessSource(child.pid)
    for chunk in source.scan(all_pages=True).chunks:
        flags |= dict(zip(chunk.vpn.tolist(), chunk.flags.tolist(), strict=True))
    source.close()
    assert flags[child.vpn["shared"]] == FILE
    assert flags[child.vpn["copied"]] == FILE
    assert flags[child.vpn["copied"] + 1] == MERGEABLE
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert flags[child.vpn["known"] + 9] == (SHARED_ZERO if release >= (6, 7) else MERGEABLE)


def test_absent_pages_stay_absent(child: Any, summary: Any, tmp_path: Path) -> None:
    def rss() -> str:
        return Path(f"/proc/{child.pid}/statm").read_text()

    before = rss()
    summary("--pid", child.pid, "--output", tmp_path / "s", "--all-pages")
    assert rss() == before


def test_several_processes(child: Any, summary: Any, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        found = summary("--pid", other.pid, "--pid", child.pid, "--output", tmp_path / "s")
        other.kill()
    assert found["processes"] == 2
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert [process.pid for process in snapshot.processes] == [other.pid, child.pid]
        assert child.vpn["known"] in snapshot.pages(1)[0]


def test_moments_show_the_writes(child: Any, tmp_path: Path) -> None:
    # Every chunk is followed by a write, so one falls between page 4's readings.
    summary = take(child, tmp_path / "s", lambda _: child.tell("write"), count=3)
    with Snapshot.open(tmp_path / "s") as snapshot:
        known = [contents(snapshot, child.vpn["known"], 16, moment) for moment in range(3)]
        assert len(snapshot.moments) == 3
        assert snapshot.moments[0] == 0
        assert list(snapshot.moments) == sorted(snapshot.moments)
        assert [moment.seconds for moment in summary.moments] == list(snapshot.moments)
    assert len({pages[4] for pages in known}) == 3
    for page in (0, 5, 6, 7):
        assert len({pages[page] for pages in known}) == 1


def test_interval_and_count(child: Any, summary: Any, tmp_path: Path) -> None:
    found = summary("--pid", child.pid, "--output", tmp_path / "s", "--interval", 0.05, "--count", 3)
    seconds = [moment["seconds"] for moment in found["moments"]]
    assert len(seconds) == 3
    assert seconds[1] >= 0.05
    assert seconds[2] >= 0.1


def test_vanishing_pages_are_counted(child: Any) -> None:
    source = ProcessSource(child.pid)
    taken = 0
    for chunk in source.scan(all_pages=False).chunks:
        inside = (chunk.vpn >= child.vpn["large"]) & (chunk.vpn < child.vpn["large"] + 1024)
        if taken == 0 and inside.any():
            child.tell("unmap")
        taken += int(inside.sum())
    source.close()
    assert 0 < taken < 1024
    assert taken + source.vanished == 1024


def test_process_that_ends_meanwhile(child: Any, tmp_path: Path) -> None:
    summary = take(child, tmp_path / "s", lambda _: child.end(), count=3)
    assert summary.ended == (child.pid,)
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert snapshot.moments == (0.0,)
        assert len(snapshot.pages(0)[0]) == summary.moments[0].pages > 0


@pytest.mark.parametrize("by_pid", [False, True])
def test_a_process_that_ends_before_it_is_captured(child: Any, tmp_path: Path, *, by_pid: bool) -> None:
    """One that was found by its parent or name is passed over; one that was asked for is missed."""
    short = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with closing(ProcessSource(child.pid)) as source, closing(ProcessSource(short.pid)) as ended:
        short.kill()
        short.wait()
        options = Options(tmp_path / "s", *load_key(None, False))
        wanted = Wanted(single=(short.pid,)) if by_pid else Wanted(names=("python*",))
        capture = lambda: Session([ended, source], options, lambda _: None, None, wanted).run()  # noqa: E731
        if by_pid:
            with pytest.raises(UserError, match=f"process {short.pid} has ended"):
                capture()
            assert not (tmp_path / "s").exists()
        else:
            assert capture().moments[0].pages > 0


def test_stops_and_goes_on(child: Any, tmp_path: Path) -> None:
    states = set()
    take(child, tmp_path / "s", lambda _: states.add(child.state), stop=True, count=2)
    assert states == {"T"}
    child.tell("write")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_goes_on_after_an_error(child: Any, tmp_path: Path, error: type[BaseException]) -> None:
    def fail(_: int) -> None:
        assert child.state == "T"
        raise error

    with pytest.raises(error):
        take(child, tmp_path / "s", fail, stop=True)
    child.tell("write")
    assert not list(tmp_path.glob("*s*"))


def test_a_stopped_process_stays_stopped(child: Any, tmp_path: Path) -> None:
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    take(child, tmp_path / "s", lambda _: None, stop=True)
    assert child.state == "T"


def test_stopping_passes_over_an_ended_process(child: Any) -> None:
    source = ProcessSource(child.pid)
    child.end()
    with stopped([source]):
        assert source.has_ended()
    source.close()


def test_no_such_process(fails: Any, tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert f"no process {process.pid}" in fails("--pid", process.pid, "--output", tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_zombie_and_kernel_thread(fails: Any, tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "has ended" in fails("--pid", process.pid, "--output", tmp_path / "s")
    if not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("no kernel threads to be seen here")
    assert "kernel thread" in fails("--pid", 2, "--output", tmp_path / "s")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("stop", ["", "--stop"])
def test_no_permission(child: Any, tmp_path: Path, stop: str) -> None:
    arguments = ["--pid", str(child.pid), "--output", str(tmp_path / "s"), *stop.split()]
    result = subprocess.run(
        [sys.executable, "-c", COMMAND + "os.setgid(65534); os.setuid(65534); main()", *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: no permission to read process {child.pid}: run as root")
    child.tell("write")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)]
)
def test_interrupted_leaves_nothing(
    child: Any, tmp_path: Path, number: signal.Signals, code: int | None
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ["--pid", str(child.pid), "--output", str(folder / "s"), "--interval", "1000", "--count", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND + "main()", *arguments],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not list(folder.iterdir()) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() in ({code} if code else {1, 130})
    assert not list(folder.iterdir())
    child.tell("write")


def test_an_error_names_the_process_once(child: Any) -> None:
    source = ProcessSource(child.pid)
    child.end()
    with pytest.raises(UserError, match=f"process {child.pid} has ended"):
        source.scan(all_pages=False)
    source.close()
