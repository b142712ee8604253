"""Runs that cannot fit are refused before they start; memory that runs out gives one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ksmcluster
from ksmcluster.snapshot import MERGEABLE, Mapping, PageRows, SnapshotProcess, SnapshotWriter
from ksmcluster.system import host_memory
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run
from tests.ksmcluster.snapshot.test_snapshot import metadata

MANY = ("--pages-per-node", "900000000")
LIMITED = (
    "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
    "from ksmcluster.cli import main; main()"
)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have joined one in this process."""
    monkeypatch.setattr(host_memory, "_ray_is_there", lambda: False)


@pytest.mark.parametrize("engine", ["ray", "inline"])
def test_too_much_is_refused_at_once(run: Run, engine: str) -> None:
    ran = run("simulate", "default", "--engine", engine, *MANY)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("error: 57,600,")
    assert "need at least 2.3 TiB of memory, but this host has " in line
    for remedy in ("--pages-per-node", "--nodes", "--address", "--no-memory-check"):
        assert remedy in line


def test_compaction_and_python() -> None:
    huge = ksmcluster.load_compaction(
        overrides=ksmcluster.Overrides(nodes=1024, settings=('machine.memory_per_node="16TiB"',))
    )
    with pytest.raises(UserError, match=r"at least 320\.0 TiB of memory.*machine\.memory_per_node"):
        ksmcluster.compact(huge)


def test_bytes_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "available", lambda: 20 << 20)
    ksmcluster.simulate("tiny", engine="inline")
    real = ksmcluster.load(
        "tiny", ksmcluster.Overrides(settings=("machine.content=bytes",), pages_per_node=4000)
    )
    with pytest.raises(UserError, match=r"8,000 pages need at least 31\.6 MiB"):
        ksmcluster.simulate(real, engine="inline")
    ksmcluster.simulate(real, engine="inline", memory_check=False)


def test_a_large_pool_takes_memory_whatever_draws_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "available", lambda: 20 << 20)
    tiny = ksmcluster.load("tiny")
    worker = tiny.process[0]
    cache = worker.region[2].model_copy(update={"distinct": 10_000_000})
    for law in ("uniform", "zipf"):
        region = cache.model_copy(update={"law": law, "exponent": 1.1})
        pooled = tiny.model_copy(update={"process": (worker.model_copy(update={"region": (region,)}),)})
        if law == "zipf":
            with pytest.raises(UserError, match=r"96 pages need at least 76\.3 MiB"):
                ksmcluster.simulate(pooled, engine="inline")
        assert ksmcluster.simulate(pooled, engine="inline", memory_check=law != "zipf").passes


def test_a_snapshot_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows of later moments count, too."""
    path = tmp_path / "s.parquet"
    flags = np.full(1000, MERGEABLE, np.uint16)
    rows = PageRows(np.arange(1000, dtype=np.uint64), np.ones((1000, 16), np.uint8), flags)
    mapping = Mapping(0, 1000, "rw-p", "", True)
    with SnapshotWriter(path) as writer:
        for moment in range(50):
            writer.write(0, moment, rows)
        process = SnapshotProcess(1, "p", "process", (mapping,))
        writer.finish(replace(metadata(tuple(map(float, range(50)))), processes=(process,)))
    monkeypatch.setattr(host_memory, "available", lambda: 1 << 20)
    with pytest.raises(UserError, match=r"50,000 pages need at least 1\.4 MiB.*fewer processes or moments"):
        ksmcluster.simulate(path, engine="inline")
    ksmcluster.simulate(path, engine="inline", memory_check=False)


def limited(*arguments: str) -> str:
    """The one line on stderr of a command that has 1 GiB of address space."""
    ran = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True)
    (line,) = ran.stderr.splitlines()
    assert ran.returncode == 2
    return line


def test_limits_of_the_address_space() -> None:
    large = ("simulate", "default", "--engine", "inline", "--quiet", "--pages-per-node", "1000000")
    assert "need at least 2.6 GiB of memory" in limited(*large)
    assert limited(*large, "--no-memory-check").startswith("error: out of memory: ")


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, usage = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    prefix = "total_" if version == 1 else ""
    for folder, most in ((tmp_path, "9223372036854771712"), (tmp_path / "job", "1000000")):
        folder.mkdir(exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("700000\n")
        (folder / "memory.stat").write_text(f"{prefix}active_file 50000\n{prefix}inactive_file 100000\n")
    monkeypatch.setattr(host_memory, "_MEMORY", tmp_path if version == 1 else tmp_path / "none")
    monkeypatch.setattr(host_memory, "_UNIFIED", tmp_path if version == 2 else tmp_path / "none")
    real = Path.read_text
    groups = "4:cpu,memory:/job/step\n" if version == 1 else "0::/job/step\n"
    monkeypatch.setattr(
        Path, "read_text", lambda path: groups if str(path) == "/proc/self/cgroup" else real(path)
    )
    assert host_memory.available() == 450_000
