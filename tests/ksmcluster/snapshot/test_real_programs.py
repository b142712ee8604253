"""Frozen programs, captured and simulated, against the ksmd of this host: every counter after every pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ksmcluster
from ksmcluster.capture.select import tree
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import WHOLE_PASS, Ksmd
from tests.ksmcluster.validate.conftest import knobs

pytestmark = pytest.mark.host_ksmd

__all__ = ["knobs"]

PASSES = 6
GAUGES = (
    *("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"),
    *("ksm_zero_pages", "stable_node_chains", "stable_node_dups"),
)
COUNTERS = ("pages_scanned", "pages_skipped")
#: /proc/PID/ksm_stat; older kernels have no profit.
OF_PROCESS = ("ksm_rmap_items", "ksm_merging_pages", "ksm_zero_pages", "ksm_process_profit")
#: By PID: the values of OF_PROCESS in the end.
Stats = dict[int, dict[str, int]]

# All memory is mergeable (prctl PR_SET_MEMORY_MERGE).
START = """
import ctypes, mmap, os, signal, sys
if ctypes.CDLL(None).prctl(67, 1, 0, 0, 0):
    sys.exit("no merge-any")
def memory(pages):
    found = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found.madvise(mmap.MADV_NOHUGEPAGE)
    return found
"""
# A pool of workers: what they inherit they share, what they write is theirs, half of it equal in all.
WORKERS = """
inherited = memory(600)
inherited[:] = os.urandom(300 * 4096) * 2
results = memory(64)
for worker in range(3):
    if os.fork() == 0:
        for page in range(64):
            results[page * 4096] = page + 1 if page % 2 else (page + 70 * worker) % 251
        for page in range(0, 600, 7):
            inherited[page * 4096 + 9] = worker
        break
os.write(1, b"ready\\n")
signal.pause()
"""
# A table of which pages are equal in groups of different size, zeros among them.
TABLE = """
table = memory(1200)
for page in range(1200):
    table[page * 4096:page * 4096 + 4] = (page % 300 if page < 900 else 0).to_bytes(4, "little")
untouched = memory(50)
os.write(1, b"ready\\n")
signal.pause()
"""
# Memory as a virtual machine has it, in huge pages: equal pages in several of them, zeros, unique ones. The
# child shares it, but for what it has written, which leaves a huge page in parts.
GUEST = """
size = 512 * 4096
guest = mmap.mmap(-1, 7 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
guest.madvise(mmap.MADV_HUGEPAGE)
first = -ctypes.addressof(ctypes.c_char.from_buffer(guest)) % size
for number in range(6):
    for page in range(0 if number < 5 else 512, 512):
        at = first + number * size + page * 4096
        if page < 300:
            guest[at:at + 4096] = bytes([1 + page % 150]) * 4096 if number < 3 else os.urandom(4096)
        elif page < 310:
            guest[at:at + 4096] = bytes([200 + number % 2]) * 4096
        else:
            guest[at] = 0
unique = first + 5 * size
guest[unique:unique + size] = os.urandom(size)
smaps = open("/proc/self/smaps").read()
if sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("AnonHugePages")) != 6 * 2048:
    os.write(1, b"no huge pages\\n")
    sys.exit()
if os.fork() == 0:
    guest[first + 4096 * 400] = 9
os.write(1, b"ready\\n")
signal.pause()
"""

# Huge pages of which parts are unmapped, given back, moved and protected; the child gives back others.
PARTS = """
libc = ctypes.CDLL(None)
libc.mremap.restype = ctypes.c_void_p
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
size, page = 512 * 4096, 4096
area = mmap.mmap(-1, 8 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_HUGEPAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
first = -start % size
for number in range(5):
    for index in range(512):
        at = first + number * size + index * page
        area[at:at + page] = (bytes(page), bytes([1 + index % 90]) * page, os.urandom(page))[index * 7 % 3]
smaps = open("/proc/self/smaps").read()
if sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("AnonHugePages")) != 5 * 2048:
    os.write(1, b"no huge pages\\n")
    sys.exit()
begin = start + first
libc.madvise(begin + 100 * page, 50 * page, 4)
libc.munmap(ctypes.c_void_p(begin + size), 37 * page)
to = memory(1024)
to = ctypes.addressof(ctypes.c_char.from_buffer(to))
libc.mremap(begin + 2 * size + 64 * page, 128 * page, 128 * page, 3, to)
libc.mprotect(ctypes.c_void_p(begin + 3 * size + 300 * page), 100 * page, 1)
if os.fork() == 0:
    libc.madvise(begin + 4 * size + 7 * page, 200 * page, 4)
os.write(1, b"ready\\n")
signal.pause()
"""


@contextmanager
def frozen(program: str, processes: int) -> Iterator[int]:
    """A program whose processes have laid out their memory, and are stopped; its PID."""
    command = [sys.executable, "-c", START + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        try:
            for _ in range(processes):
                if process.stdout.readline() != b"ready\n":
                    pytest.skip("this kernel has no PR_SET_MEMORY_MERGE, or no huge pages")
            os.killpg(process.pid, signal.SIGSTOP)
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def ksm_stat(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/ksm_stat").read_text().splitlines()
    found = dict(line.split() for line in lines)
    return {name: int(found[name]) for name in OF_PROCESS}


def real(knobs: Knobs, settings: dict[str, int], pids: list[int]) -> tuple[list[dict[str, int]], Stats]:
    """The counters after each pass of the host's ksmd, and ksm_stat of each process in the end."""
    saved = knobs.saved()
    with knobs.locked():
        try:
            ksmd = Ksmd(knobs)
            ksmd.start()
            knobs.set("advisor_mode", "none")
            for name, value in settings.items():
                knobs.must_set(name, value)
            begin = {name: knobs.number(name) for name in COUNTERS}
            passes = []
            for _ in range(PASSES):
                ksmd.step(WHOLE_PASS)
                gauges = {name: knobs.number(name) for name in GAUGES}
                passes.append(gauges | {name: knobs.number(name) - begin[name] for name in COUNTERS})
            stats = {pid: ksm_stat(pid) for pid in pids}
        finally:
            knobs.put_back(saved)
    return passes, stats


def simulated(snapshot: Path, settings: dict[str, int]) -> tuple[list[dict[str, int]], Stats]:
    changes = ksmcluster.Overrides(
        passes=PASSES, settings=tuple(f"ksm.{name}={value}" for name, value in settings.items())
    )
    result = ksmcluster.simulate(ksmcluster.load(snapshot, changes), engine="inline")
    passes, processes = result.passes, result.processes
    found, sums = [], dict.fromkeys(COUNTERS, 0)
    for row in range(PASSES):
        sums = {name: sums[name] + int(passes[name][row]) for name in COUNTERS}
        found.append({name: int(passes[name][row]) for name in GAUGES} | sums)
    rows = {int(pid): row for row, pid in enumerate(processes["pid"])}
    return found, {pid: {name: int(processes[name][row]) for name in OF_PROCESS} for pid, row in rows.items()}


@pytest.mark.parametrize("smart_scan", [0, 1])
@pytest.mark.parametrize("use_zero_pages", [0, 1])
@pytest.mark.parametrize(
    ("program", "processes"),
    [(WORKERS, 4), (TABLE, 1), (GUEST, 2), (PARTS, 2)],
    ids=["workers", "table", "guest", "parts"],
)
def test_every_counter_is_that_of_the_host(
    knobs: Knobs, tmp_path: Path, program: str, processes: int, use_zero_pages: int, smart_scan: int
) -> None:
    if not knobs.exists("smart_scan"):
        pytest.skip("this kernel has no smart_scan")
    settings = {"use_zero_pages": use_zero_pages, "smart_scan": smart_scan}
    with frozen(program, processes) as pid:
        output = str(tmp_path / "s")
        command = [sys.executable, "-m", "ksmcluster.cli", "capture", "--quiet", "--output", output]
        subprocess.run([*command, "--pid-tree", str(pid)], check=True)
        expected = real(knobs, settings, tree(pid))
    found = simulated(tmp_path / "s", settings)
    assert found == expected
