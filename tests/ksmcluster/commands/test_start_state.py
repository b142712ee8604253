"""`ksmcluster compact` on the free memory of a machine, as users post it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.ksmcluster.conftest import Run

#: Of a laptop, and of a machine with two nodes.
LAPTOP = """\
Node 0, zone      DMA      1      0      0      1      2      1      1      0      1      1      0
Node 0, zone    DMA32    759    572    791    475    194     45     12      0      0      0      0
Node 0, zone   Normal   4381   1093    185   1530    567    102      4      0      0      0      0
"""
SERVER = """\
Node 0, zone   Normal     10      9      8      7      6      5      4      3      2      1      0

Node 2, zone   Normal      0      0      0      0      0      0      0      0      0      0      3
Node 0, zone  Movable      1      1      1      1      1      1      1      1      1      1      1
"""
INLINE = ("--engine", "inline", "--quiet", "--json")


@pytest.fixture
def posted(tmp_path: Path) -> Path:
    file = tmp_path / "buddyinfo.txt"
    file.write_text(LAPTOP)
    return file


def test_free_blocks_of_a_file(run: Run, posted: Path, tmp_path: Path) -> None:
    """The run begins with them; its config.toml says them, so that it can be repeated without the file."""
    out = tmp_path / "out"
    size = ("--set", "machine.memory_per_node=256MiB")
    ran = run("compact", "--buddyinfo", str(posted), *size, *INLINE, "--output", str(out))
    assert (ran.code, ran.err) == (0, "")
    summary = json.loads(ran.out)
    counts = [5141, 1665, 976, 2006, 763, 148, 17, 0, 1, 1, 0]
    assert summary["free_blocks"]["before"] == counts
    assert list(summary["obtained"]) == ["before", "movable_on"]
    assert summary["obtained"]["movable_on"] == 4
    (note,) = summary["notes"]
    assert "drawn with the seed" in note
    assert "80% of them" in note
    row = pq.read_table(out / "nodes.parquet").to_pylist()[0]
    assert [row[f"free_before_{order}"] for order in range(11)] == counts
    posted.unlink()
    again = run("compact", str(out / "config.toml"), *INLINE)
    assert again.out == ran.out
    other = json.loads(run("compact", str(out / "config.toml"), "--seed", "2", *INLINE).out)
    assert other["free_blocks"]["before"] == counts
    assert other["free_blocks"]["movable_on"] != summary["free_blocks"]["movable_on"]


def test_nodes_of_a_file(run: Run, tmp_path: Path) -> None:
    """Zones of a node are added up, also with other lines between them."""
    file = tmp_path / "server"
    file.write_text(SERVER)
    ran = run(
        *("compact", "compaction-zram", "--buddyinfo", str(file)),
        *("--set", "machine.memory_per_node=32MiB", "--output", str(tmp_path / "out"), *INLINE),
    )
    assert ran.code == 0, ran.err
    rows = pq.read_table(tmp_path / "out" / "nodes.parquet").to_pylist()
    free = [[row[f"free_before_{order}"] for order in range(11)] for row in rows]
    assert free == [[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1], [*[0] * 10, 3]]
    # the scenario's driver has its part of the other memory
    assert json.loads(ran.out)["by_driver"]["swap"]["moved"] > 0


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("", (), "is empty; give the text of /proc/buddyinfo"),
        ("MemTotal: 12 kB\n", (), "line 1 is no line of /proc/buddyinfo: 'MemTotal: 12 kB'"),
        (LAPTOP.replace("      0\n", "\n"), (), "line 1 has 10 orders; with pages of 4 KiB there are 11"),
        (LAPTOP + LAPTOP, (), "line 4 has zone DMA of node 0 again; give one moment only"),
        ("\xff", (), "not UTF-8 text (byte 0)"),
        (LAPTOP, (), "machine.memory_per_node: is missing; free blocks do not say how much memory"),
        (LAPTOP, ("machine.memory_per_node=64MiB",), "free blocks of order 4 do not fit"),
        (LAPTOP, ("machine.memory_per_node=3MiB",), "must be a multiple of 2MiB"),
        (
            LAPTOP,
            ("machine.memory_per_node=256MiB", "machine.nodes=2"),
            "machine.free_blocks: has 1 lists, but machine.nodes is 2",
        ),
        (
            LAPTOP,
            ("machine.memory_per_node=256MiB", "machine.free_blocks=[[1, 2]]"),
            "machine.free_blocks[0]: must have 11 numbers, not 2",
        ),
    ],
)
def test_mistakes(run: Run, posted: Path, text: str, settings: tuple[str, ...], says: str) -> None:
    posted.write_bytes(text.encode("latin-1"))
    sets = [word for setting in settings for word in ("--set", setting)]
    ran = run("compact", "--buddyinfo", str(posted), *sets, *INLINE)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_files_that_are_not_read(run: Run, posted: Path) -> None:
    for file, says in (
        (posted.with_name("gone"), "No such file or directory; give a file that can be read"),
        (posted.parent, "Is a directory"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        ran = run("compact", "--buddyinfo", str(file))
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert f"error: --buddyinfo {file}: {says}" in ran.err
    with posted.open("wb") as large:
        large.truncate((16 << 20) + 1)
    assert "are too many; 16,777,216 at most" in run("compact", "--buddyinfo", str(posted)).err
