"""`ksmcluster compact` on the free memory of a machine, as users post it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ksmcluster.config import FULL_MACHINE, load_compaction
from ksmcluster.system import kernel_files
from ksmcluster.system.start_state import start_keys
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
#: Of the laptop, a moment later: two more free pages, and one of the largest blocks is in use.
TYPES = """\
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order  0    1    2    3    4    5    6   7   8   9  10
Node    0, zone    DMA, type    Unmovable   1    0    0    1    2    1    1   0   1   0   0
Node    0, zone    DMA, type      Movable   0    0    0    0    0    0    0   0   0   0   0
Node    0, zone    DMA, type  Reclaimable   0    0    0    0    0    0    0   0   0   0   0
Node    0, zone  DMA32, type    Unmovable   9    2    1    5    4    5    2   0   0   0   0
Node    0, zone  DMA32, type      Movable 752  570  790  470  190   40   10   0   0   0   0
Node    0, zone  DMA32, type          CMA   0    0    0    0    0    0    0   0   0   0   0
Node    0, zone  DMA32, type  Reclaimable   0    0    0    0    0    0    0   0   0   0   0
Node    0, zone Normal, type    Unmovable  10   10   10   10   10   10    0   0   0   0   0
Node    0, zone Normal, type      Movable >100000 1063 155 1500 537  92   4   0   0   0   0
Node    0, zone Normal, type  Reclaimable  20   20   20   20   20    0    0   0   0   0   0
Node    0, zone Normal, type   HighAtomic   0    0    0    0    0    0    0   0   0   0   0

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA
Node 0, zone      DMA             2            0            0            0            0
Node 0, zone    DMA32             4           40            0            0            1
Node 0, zone   Normal             8           60            6            1            0

Number of mixed blocks    Unmovable      Movable  Reclaimable   HighAtomic          CMA
Node 0, zone   Normal             1            1            1            0            0
"""
INLINE = ("--engine", "inline", "--quiet", "--json")


@pytest.fixture
def posted(tmp_path: Path) -> Path:
    file = tmp_path / "buddyinfo.txt"
    file.write_text(LAPTOP)
    return file


def test_a_text_that_may_be_cut_off_is_refused(run: Run, posted: Path) -> None:
    posted.write_text(LAPTOP[:-1])
    ran = run("compact", "--buddyinfo", str(posted), *INLINE)
    assert ran.code == 2
    assert "may be cut off: the last line has no line break" in ran.err


def test_the_files_say_how_many_nodes_there_are(run: Run, posted: Path) -> None:
    ran = run("compact", "--buddyinfo", str(posted), "--nodes", "2", *INLINE)
    assert (ran.code, ran.err) == (2, "error: --nodes: the files' machine has 1 node; leave it out\n")


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
        (LAPTOP + LAPTOP, (), "line 4 has zone DMA of node 0 again; give the text of one moment"),
        ("\xff", (), "not UTF-8 text (byte 0)"),
        (LAPTOP, (), "machine.memory_per_node: is missing; free blocks do not say how much memory"),
        (LAPTOP, ("machine.memory_per_node=64MiB",), "of order 4 do not fit beside the larger ones in 64MiB"),
        (
            LAPTOP,
            ("machine.memory_per_node=256MiB", "machine.pageblocks=[[1, 2, 3]]"),
            "machine.free_unmovable: is missing; machine.pageblocks needs it",
        ),
        (LAPTOP, ("machine.memory_per_node=3MiB",), "must be a multiple of 2MiB"),
        (
            LAPTOP,
            ("machine.memory_per_node=256MiB", "machine.nodes=2"),
            "machine.free_blocks: has 1 list, but machine.nodes is 2",
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
    assert says in ran.err.splitlines()[0]
    assert all(line.startswith("error: ") for line in ran.err.splitlines())


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


def test_types_of_pageblocks(run: Run, posted: Path, tmp_path: Path) -> None:
    """They say how much memory there is; free blocks are those of buddyinfo."""
    types, out = tmp_path / "pagetypeinfo", tmp_path / "out"
    types.write_text(TYPES)
    files = ("--buddyinfo", str(posted), "--pagetypeinfo", str(types))
    ran = run("compact", *files, *INLINE, "--output", str(out))
    assert (ran.code, ran.err) == (0, "")
    machine = tomllib.loads((out / "config.toml").read_text())["machine"]
    assert machine["memory_per_node"] == f"{2 * 122}MiB"
    assert machine["unmovable"] == 0
    assert machine["pageblocks"] == [[15, 101, 6]]
    assert machine["free_unmovable"] == [[20, 12, 11, 16, 16, 16, 3, 0, 1, 0, 0]]
    assert machine["free_reclaimable"] == [[20, 20, 20, 20, 20, 0, 0, 0, 0, 0, 0]]
    summary = json.loads(ran.out)
    assert summary["free_blocks"]["before"] == [5141, 1665, 976, 2006, 763, 148, 17, 0, 1, 1, 0]
    assert "pageblocks of each type are as given" in summary["notes"][0]
    assert run("compact", str(out / "config.toml"), *INLINE).out == ran.out
    # alone it is enough if it counts all blocks
    types.write_text(TYPES.replace(">100000", "   4351"))
    alone = json.loads(run("compact", "--pagetypeinfo", str(types), *INLINE).out)
    assert alone["free_blocks"]["before"] == [5143, 1665, 976, 2006, 763, 148, 17, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", "has more than 100000 blocks of an order, uncounted; give --buddyinfo, too"),
        ("order: 9", "order: 5", "has pageblocks of order 5; order 9 can be simulated"),
        ("Number of blocks", "Blocks", "is not the whole text of /proc/pagetypeinfo"),
        ("0, zone    DMA, type", "1, zone    DMA, type", "is not the whole text of /proc/pagetypeinfo"),
        ("type      Movable   0    0", "type      Movable   0", "line 6 has 10 orders"),
        ("zone    DMA32             4", "zone    DMA32", "line 19 has 4 numbers for 5 types"),
        (
            "Node    0, zone  DMA32, type      Movable",
            "Node 0, zone DMA, type Movable",
            "line 9 has zone",
        ),
    ],
)
def test_mistakes_of_types(run: Run, posted: Path, old: str, new: str, says: str) -> None:
    posted.write_text(TYPES.replace(old, new))
    ran = run("compact", "--pagetypeinfo", str(posted), *INLINE)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"error: --pagetypeinfo {posted}: {says}")


def test_files_of_two_machines(run: Run, posted: Path, tmp_path: Path) -> None:
    other = tmp_path / "server"
    other.write_text(SERVER)
    posted.write_text(TYPES)
    ran = run("compact", "--pagetypeinfo", str(posted), "--buddyinfo", str(other))
    assert ran.err.endswith(": has other nodes than --buddyinfo; give two files of one machine\n")


def test_another_machine_in_place_of_the_scenario(run: Run, posted: Path, tmp_path: Path) -> None:
    """Nothing is left of what the scenario knew of the pageblocks of its machine."""
    types, out = tmp_path / "pagetypeinfo", tmp_path / "out"
    types.write_text(TYPES.replace(">100000", "4351"))
    run("compact", "--pagetypeinfo", str(types), *INLINE, "--output", str(out))
    ran = run("compact", str(out / "config.toml"), "--buddyinfo", str(posted), *INLINE, "--output", str(out))
    assert ran.code == 0, ran.err
    machine = tomllib.loads((out / "config.toml").read_text())["machine"]
    assert machine["memory_per_node"] == "244MiB"
    assert not {"pageblocks", "free_unmovable", "free_reclaimable"} & machine.keys()


@pytest.mark.skipif(not os.access("/proc/buddyinfo", os.R_OK), reason="the kernel hides its free memory")
def test_this_host() -> None:
    """All its memory fits into what is simulated."""
    keys = start_keys(None, None, from_host=True)
    scenario = load_compaction(FULL_MACHINE, start=keys)
    machine = scenario.machine
    assert machine.free_blocks is not None
    free = sum(count << order for node in machine.free_blocks for order, count in enumerate(node))
    assert 0 < free < machine.nodes * machine.memory_per_node
    of_nodes = Path("/sys/devices/system/node").glob("node*/meminfo")
    totals = [int(re.findall(r"MemTotal: +(\d+) kB", file.read_text())[0]) for file in of_nodes]
    assert sum(totals) // 4 <= machine.nodes * machine.memory_per_node


def test_a_host_with_and_without_root(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is what zoneinfo says, in whole pageblocks, or what pagetypeinfo does."""
    monkeypatch.setattr(kernel_files, "PROC", tmp_path)
    (tmp_path / "buddyinfo").write_text(LAPTOP)
    zones = ("DMA", 1000), ("DMA32", 20000), ("Normal", 44600)
    lines = (f"Node 0, zone {zone}\n  pages free 1\n        managed  {count}\n" for zone, count in zones)
    (tmp_path / "zoneinfo").write_text("".join(lines))
    out = tmp_path / "out"
    counts = [5141, 1665, 976, 2006, 763, 148, 17, 0, 1, 1, 0]
    for size, blocks in (("258MiB", None), ("244MiB", [[15, 101, 6]])):
        ran = run("compact", "--from-host", *INLINE, "--output", str(out))
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["free_blocks"]["before"] == counts
        machine = tomllib.loads((out / "config.toml").read_text())["machine"]
        assert (machine["memory_per_node"], machine.get("pageblocks")) == (size, blocks)
        (tmp_path / "pagetypeinfo").write_text(TYPES)
    (tmp_path / "buddyinfo").unlink()
    assert run("compact", "--from-host").err.startswith(f"error: --from-host {tmp_path}/buddyinfo: No such")
    ran = run("compact", "--from-host", "--buddyinfo", "x")
    assert ran.err == "error: --from-host: reads the files of this machine; give no other file\n"


@pytest.mark.parametrize(("waiting", "noted"), [(100, False), (300, True)])
def test_free_pages_on_per_cpu_lists_of_this_host(
    waiting: int, noted: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not in buddyinfo; in real runs on 6.18, pageblocks with some of them stayed as they were."""
    monkeypatch.setattr(kernel_files, "PROC", tmp_path)
    (tmp_path / "buddyinfo").write_text(LAPTOP)
    cpus = "".join(f"    cpu: {cpu}\n              count:    {waiting}\n" for cpu in range(4))
    (tmp_path / "zoneinfo").write_text(f"Node 0, zone   Normal\n        managed  65600\n  pagesets\n{cpus}")
    ran = run("compact", "--from-host", *INLINE)
    assert ran.code == 0, ran.err
    found = [note for note in json.loads(ran.out).get("notes", []) if "per-CPU lists" in note]
    assert [note.partition(" wait")[0] for note in found] == (
        ["1,200 free pages (2% of the memory)"] if noted else []
    )
