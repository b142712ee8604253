"""What a capture knows of frames, hosts and families of processes: real ones, as root."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ksmcluster
from ksmcluster.capture.frames import identify
from ksmcluster.capture.host import host_info
from ksmcluster.capture.kpage import KernelPages
from ksmcluster.capture.pagemap import Listing
from ksmcluster.capture.select import Wanted, tree
from ksmcluster.snapshot import MERGEABLE, SHARED, SHARED_ZERO, Snapshot, SnapshotPages

pytestmark = pytest.mark.host_ksmd

root = pytest.mark.skipif(os.geteuid() != 0, reason="frame numbers are for root")
RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])

FAMILY = """
import mmap, os, sys
memory = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.madvise(12)  # MADV_MERGEABLE
for page in range(32):
    memory[page * 4096] = page + 1
memory[40 * 4096]  # the shared zero page
import ctypes
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
child = os.fork()
if child == 0:
    for page in range(4):
        memory[page * 4096] = page + 1  # the same bytes: copied on write
    os.write(1, b"x")
    sys.stdin.read()
    os._exit(0)
print(address // 4096, child, flush=True)
sys.stdin.read()
os.waitpid(child, 0)
"""


@contextmanager
def family() -> Iterator[tuple[int, int, int]]:
    """Parent, child, and the first page of 32 that both map; the child has copied four of them."""
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        text = b""
        while not (text.count(b"x") and text.count(b"\n")):
            text += os.read(process.stdout.fileno(), 100)
        vpn, child = (int(word) for word in text.replace(b"x", b"").split())
        yield process.pid, child, vpn
        process.stdin.close()


def region(pages: SnapshotPages, vpn: int) -> SnapshotPages:
    return pages.where((pages.vpn >= vpn) & (pages.vpn < vpn + 64))


@root
def test_forked_processes_share_frames(summary: Any, tmp_path: Path) -> None:
    with family() as (parent, child, vpn):
        summary("--pid-tree", parent, "--output", tmp_path / "both")
        summary("--pid", child, "--output", tmp_path / "alone")
    with Snapshot.open(tmp_path / "both") as snapshot:
        assert [process.pid for process in snapshot.processes] == [parent, child]
        assert [process.parent for process in snapshot.processes] == [None, 0]
        (mapping,) = (m for m in snapshot.processes[1].mappings if m.start_vpn <= vpn < m.end_vpn)
        assert mapping.advised
        assert not mapping.thp_eligible
        theirs, its = (region(pages, vpn) for _, _, pages in snapshot.blocks())
        assert any(m.name == "[stack]" and m.advised is False for m in snapshot.processes[0].mappings)
    assert its.vpn[:32].tolist() == theirs.vpn[:32].tolist() == list(range(vpn, vpn + 32))
    shared = its.frame == theirs.frame
    assert shared[:33].tolist() == [False] * 4 + [True] * 28 + [True]
    assert len({*its.frame[:32].tolist(), *theirs.frame[:32].tolist()}) == 36
    assert its.outside[:32].tolist() == theirs.outside[:32].tolist() == [0] * 32
    assert (its.flags[:32] & SHARED != 0).tolist() == [False] * 4 + [True] * 28
    assert its.vpn[32] == vpn + 40
    if RELEASE >= (6, 7):
        assert its.flags[32] & (SHARED_ZERO | MERGEABLE) == SHARED_ZERO
    assert its.frame[32] == -1
    with Snapshot.open(tmp_path / "alone") as snapshot:
        ((_, _, pages),) = snapshot.blocks()
        codes = {note.code for note in snapshot.metadata.notes}
        assert codes >= {"outside", "one-moment"}
    alone = region(pages, vpn)
    assert alone.outside[:32].tolist() == [0] * 4 + [1] * 28


@root
def test_frames_are_numbered_by_first_appearance() -> None:
    none = np.zeros(3, np.uint16)
    listings = [
        Listing(np.arange(3), none.copy(), np.array([2000, 1000, 0]), np.zeros(3, np.bool_)),
        Listing(np.arange(3), none.copy(), np.array([1000, 3000, 2000]), np.zeros(3, np.bool_)),
    ]
    kernel = KernelPages.open()
    assert kernel is not None
    with kernel:
        first, second = identify([1, 2], listings, kernel, [0])
    assert first.frame.tolist() == [0, 1, -1]
    assert second.frame.tolist() == [1, 2, 0]


def test_without_root_frames_are_not_known() -> None:
    flags = np.array([MERGEABLE, MERGEABLE | SHARED], np.uint16)
    huge = np.array([False, True])
    listing = Listing(np.array([511, 512]), flags, np.zeros(2, np.int64), huge)
    (found,) = identify([1], [listing], None, [0])
    assert found.frame.tolist() == found.outside.tolist() == [-1, -1]
    assert found.huge.tolist() == [-1, 0]


def test_the_host_is_described(summary: Any, child: Any, tmp_path: Path) -> None:
    summary("--pid", child.pid, "--output", tmp_path / "s")
    with Snapshot.open(tmp_path / "s") as snapshot:
        host = snapshot.metadata.host
    assert host is not None
    assert host.kernel_release == os.uname().release
    assert host.hz in (100, 250, 300, 1000)
    ksm = Path("/sys/kernel/mm/ksm")
    if ksm.is_dir():
        assert set(host.ksm) == {file.name for file in ksm.iterdir()}
        assert host.ksm["max_page_sharing"] == (ksm / "max_page_sharing").read_text().strip()
    memory = Path("/sys/devices/system/node/node0/meminfo").read_text().split()
    assert host.nodes[0].memory_bytes == 1024 * int(memory[memory.index("MemTotal:") + 1])
    assert host.nodes[0].distances[0] == 10


def test_minimal_tells_neither_names_nor_topology(summary: Any, child: Any, tmp_path: Path) -> None:
    summary("--pid", child.pid, "--output", tmp_path / "s", "--minimal")
    with Snapshot.open(tmp_path / "s") as snapshot:
        (process,) = snapshot.processes
        assert (process.pid, process.name) == (None, "")
        assert {mapping.name for mapping in process.mappings} == {""}
        assert snapshot.metadata.host is not None
        assert snapshot.metadata.host.nodes == ()


def test_ticks_of_the_timer_are_those_of_the_configuration() -> None:
    configuration = Path("/proc/config.gz")
    if not configuration.exists():
        pytest.skip("this kernel does not tell its configuration")
    import gzip

    assert f"\nCONFIG_HZ={host_info().hz}\n" in gzip.decompress(configuration.read_bytes()).decode()


# Whom.


def test_names_and_trees() -> None:
    with family() as (parent, child, _):
        assert tree(parent) == [parent, child]
        name = Path(f"/proc/{parent}/comm").read_text().strip()
        assert {parent, child} <= set(Wanted(names=(name[:3] + "*",)).pids())
        assert Wanted(single=(child,), trees=(parent,)).pids() == [child, parent]


def test_users_of_ksm(summary: Any, tmp_path: Path) -> None:
    if not Path("/proc/self/ksm_stat").exists():
        pytest.skip("this kernel has no ksm_stat")
    with family() as (parent, child, _):
        assert {parent, child} <= set(Wanted(ksm_users=True).pids())
        assert os.getpid() not in Wanted(ksm_users=True).pids()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pid-tree", 2**22 + 1), "there is no process 4194305"),
        (("--cgroup", "/no/such/group"), "there is no control group /no/such/group"),
        (("--name", "no-such-name-*"), "no process matches: check the name"),
        (("--", "true"), "every process ended before its memory was captured: capture one that runs longer"),
        (("--after", -1, "--pid", 1), "--after must be"),
        (("--", "/no/such/command"), "/no/such/command cannot be started: No such file"),
    ],
)
def test_nobody_to_capture(fails: Any, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    assert message in fails("--output", tmp_path / "s", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_command_is_followed_with_its_children(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, time, sys
        while not os.listdir(sys.argv[1]):
            time.sleep(0.01)
        time.sleep(1)  # after the first moment
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        os.wait()
        print("done", flush=True)
    """)
    output = tmp_path / "s"
    capture = [sys.executable, "-m", "ksmcluster.cli", "capture", "--output", str(output), "--json"]
    capture += ["--interval", "3", "--count", "2", "--", sys.executable, "-c", script, str(tmp_path)]
    ran = subprocess.run(capture, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    summary, done = ran.stdout.splitlines()
    assert done == "done"  # the command goes on to its end
    assert json.loads(summary)["processes"] >= 1
    with Snapshot.open(output) as snapshot:
        assert [process.parent for process in snapshot.processes] == [None, 0]
        found = [(moment, process) for moment, process, _ in snapshot.blocks()]
    assert found == [(0, 0), (1, 0), (1, 1)]


@root
def test_what_ksm_saves_at_best_leaves_out_shared_frames(tmp_path: Path, summary: Any) -> None:
    with family() as (parent, _, _):
        found = summary("--pid-tree", parent, "--output", tmp_path / "s", "--track-writes", "off")
    (moment,) = found["moments"]
    # 28 pages that were not written since the fork are in one frame each.
    assert moment["shared_pages"] >= 28
    most = (moment["duplicate_pages"] - moment["shared_pages"]) * 4096
    overrides = ksmcluster.Overrides(advice="all", passes=4, settings=("ksm.smart_scan=0",))
    result = ksmcluster.simulate(ksmcluster.load(tmp_path / "s", overrides), engine="inline")
    saved = result.summary["derived"]["saved_bytes"]
    assert 4 * 4096 <= saved <= most < 1.1 * saved


_DROP_FROM_BOUNDING_SET, _CAP_SYS_ADMIN = 24, 21


@root
def test_root_without_the_capability_says_that_it_sees_no_frames(tmp_path: Path) -> None:
    """It may open /proc/kpagecount, but pagemap shows no frame numbers to it: as in many containers."""
    prctl = ctypes.CDLL(None).prctl
    code = "import sys; from ksmcluster.cli import main; main()"
    with family() as (parent, _, _):
        options = ("--pid-tree", str(parent), "--output", tmp_path / "s", "--quiet", "--track-writes", "off")
        ran = subprocess.run(
            [sys.executable, "-c", code, "capture", *options],
            capture_output=True,
            text=True,
            preexec_fn=lambda: prctl(_DROP_FROM_BOUNDING_SET, _CAP_SYS_ADMIN, 0, 0, 0),
        )
    assert ran.returncode == 0, ran.stderr
    with Snapshot.open(tmp_path / "s") as found:
        notes = {note.code: note.text for note in found.metadata.notes}
    assert notes["frames"].startswith("only root with CAP_SYS_ADMIN can see which of ")
    assert "fork" not in notes
