"""Core files: made by hand, by gcore and by the kernel."""

import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmcluster.capture.core import CoreSource
from ksmcluster.snapshot import Mapping, Snapshot

PAGE = 4096
A, B, ZERO = b"a" * PAGE, b"b" * PAGE, bytes(PAGE)


def note(number: int, description: bytes) -> bytes:
    padding = bytes(-len(description) % 4)
    return struct.pack("<III8s", 5, len(description), number, b"CORE") + description + padding


def prpsinfo(pid: int, name: bytes) -> bytes:
    return note(3, struct.pack("<4B4xQII4i16s80s", 0, 0, 0, 0, 0, 0, 0, pid, 0, 0, 0, name, b""))


def files(page_size: int, *entries: tuple[int, int, bytes]) -> bytes:
    ranges = b"".join(struct.pack("<QQQ", start, end, 0) for start, end, _ in entries)
    names = b"".join(name + b"\0" for _, _, name in entries)
    return note(0x46494C45, struct.pack("<QQ", len(entries), page_size) + ranges + names)


def make_core(*segments: tuple[int, int, bytes], notes: bytes = b"", machine: int = 62) -> bytes:
    """An ELF core of (address, memory size, data) segments, their data at whole pages of the file."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(4, machine, 1, 0, 64, 0, 0, 64, 56, 1 + len(segments), 0, 0, 0),
    )
    body = header + struct.pack("<IIQQQQQQ", 4, 0, 64 + 56 * (1 + len(segments)), 0, 0, len(notes), 0, 4)
    first = -(-(len(body) + 56 * len(segments) + len(notes)) // PAGE) * PAGE
    offset = first
    for address, size, data in segments:
        body += struct.pack("<IIQQQQQQ", 1, 6, offset, address, 0, len(data), size, PAGE)
        offset += len(data)
    return (body + notes).ljust(first, b"\0") + b"".join(data for _, _, data in segments)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """Five stored pages of two contents and one zero page, one page absent, one page of a file."""
    path = tmp_path / "core"
    path.write_bytes(
        make_core(
            (0x10000, 4 * PAGE, A + B + A),
            (0x20000, 2 * PAGE, ZERO + A),
            (0x30000, PAGE, B),
            (0x40000, PAGE, b""),
            notes=prpsinfo(1234, b"prog")
            + note(6, struct.pack("<4Q", 25, 0x20010, 0, 0))
            + files(PAGE, (0x30000, 0x31000, b"/lib/x.so")),
        )
    )
    return path


def test_pages_of_a_core(core: Path, summary: Any, tmp_path: Path) -> None:
    found = summary("--core", core, "--output", tmp_path / "s", "--unkeyed")
    (moment,) = found["moments"]
    assert moment == {
        "seconds": 0,
        "pages": 5,
        "mergeable_pages": 5,
        "zero_pages": 1,
        "distinct_contents": 3,
        "duplicate_pages": 2,
        "shared_pages": 0,
    }
    with Snapshot.open(tmp_path / "s") as snapshot:
        (process,) = snapshot.processes
        vpn, content = snapshot.pages(0)
        assert snapshot.metadata.kernel_release is None
    assert (process.pid, process.name, process.source) == (1234, "prog", "core")
    assert process.mappings == (
        Mapping(0x10, 4, "rw-p", "", True),
        Mapping(0x20, 2, "rw-p", "[stack]", True),
        Mapping(0x30, 1, "rw-?", "/lib/x.so", False),
        Mapping(0x40, 1, "rw-p", "", True),
    )
    assert vpn.tolist() == [0x10, 0x11, 0x12, 0x20, 0x21]
    assert content[0] == content[2] == content[4] != content[1]
    assert content[3] == 0


def test_all_pages_takes_file_pages(core: Path, summary: Any, tmp_path: Path) -> None:
    (moment,) = summary("--core", core, "--output", tmp_path / "s", "--all-pages")["moments"]
    assert (moment["pages"], moment["mergeable_pages"], moment["duplicate_pages"]) == (6, 5, 2)
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert 0x30 not in snapshot.pages(0)[0]
        assert 0x30 in snapshot.pages(0, all_pages=True)[0]


def test_core_without_notes_and_a_part_of_a_page(tmp_path: Path, summary: Any) -> None:
    path = tmp_path / "core"
    path.write_bytes(make_core((0x10000, 2 * PAGE, A + b"b" * 100)))
    (moment,) = summary("--core", path, "--output", tmp_path / "s")["moments"]
    assert (moment["pages"], moment["distinct_contents"]) == (2, 2)
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert (snapshot.processes[0].pid, snapshot.processes[0].name) == (None, "core")


@pytest.mark.parametrize(
    ("page_size", "pages"), [(PAGE, [0x10, 0x11, 0x14]), (1, [0x10, 0x11, 0x12, 0x13, 0x14])]
)
def test_holes(tmp_path: Path, page_size: int, pages: list[int]) -> None:
    """Holes are absent pages in the kernel's cores and zero pages in those of gcore."""
    path = tmp_path / "core"
    data = A + ZERO + ZERO + ZERO + B
    path.write_bytes(make_core((0x10000, 5 * PAGE, data), notes=files(page_size)))
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.truncate(size - 3 * PAGE)
        file.seek(size - PAGE)
        file.write(B)
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("this file system has no holes")
    source = CoreSource(path)
    assert [vpn for chunk in source.scan(False).chunks for vpn in chunk.vpn.tolist()] == pages
    source.close()


def test_truncated(core: Path, fails: Any, tmp_path: Path) -> None:
    whole = core.read_bytes()
    for size in (len(whole) - 1, PAGE + 1, 100, 70):
        core.write_bytes(whole[:size])
        line = fails("--core", core, "--output", tmp_path / "s")
        assert "is truncated" in line or "is damaged" in line
    core.write_bytes(whole[:-1])
    assert f"{len(whole) - 1} of {len(whole)} bytes" in fails("--core", core, "--output", tmp_path / "s")
    assert names(tmp_path) == ["core"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ELF file"),
        (b"hello", "not an ELF file"),
        (Path(sys.executable).resolve().read_bytes(), "not a core"),
        (
            struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 4, 3, 1, *[0] * 4, 52, 32, 0, 0, 0, 0),
            "32-bit",
        ),
        (make_core(), "holds no memory"),
        (make_core((0x10001, PAGE, A)), "not a range of whole pages"),
        (make_core((0x10000, PAGE, A), (0x10000, PAGE, A)), "not a range of whole pages"),
        (make_core((0x10000, PAGE, A), notes=files(65536)), "pages of 65536 bytes"),
        (make_core((0x10000, PAGE, A), notes=note(6, b"abc")), "is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_not_a_core(content: bytes, message: str, fails: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert message in fails("--core", path, "--output", tmp_path / "s")


def test_absent_and_folder(fails: Any, tmp_path: Path) -> None:
    assert "does not exist" in fails("--core", tmp_path / "none", "--output", tmp_path / "s")
    assert "not a regular file" in fails("--core", tmp_path, "--output", tmp_path / "s")


def region(snapshot: Path, first: int, pages: int) -> dict[int, int]:
    with Snapshot.open(snapshot) as opened:
        vpn, content = opened.pages(0)
    inside = (vpn >= first) & (vpn < np.uint64(first + pages))
    return dict(zip((vpn[inside] - np.uint64(first)).tolist(), content[inside].tolist(), strict=True))


@pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore is not installed")
def test_core_of_gcore(child: Any, summary: Any, tmp_path: Path) -> None:
    made = subprocess.run(["gcore", "-o", tmp_path / "core", str(child.pid)], capture_output=True, text=True)
    path = tmp_path / f"core.{child.pid}"
    if not path.exists():
        pytest.skip(f"gcore could not write a core: {made.stderr.strip()[-200:]}")
    summary("--pid", child.pid, "--output", tmp_path / "live", "--unkeyed")
    summary("--core", path, "--output", tmp_path / "dead", "--unkeyed")
    for name, pages in (("known", 16), ("large", 1024)):
        live = region(tmp_path / "live", child.vpn[name], pages)
        dead = region(tmp_path / "dead", child.vpn[name], pages)
        assert {page: content for page, content in dead.items() if content} == {
            page: content for page, content in live.items() if content
        }
    with Snapshot.open(tmp_path / "dead") as snapshot:
        (process,) = snapshot.processes
    assert process.pid == child.pid
    assert process.name.startswith("python")
    assert {mapping.name for mapping in process.mappings} >= {"[stack]", "[vdso]"}


def test_core_of_the_kernel(child: Any, summary: Any, tmp_path: Path) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text() != "core\n":
        pytest.skip("core_pattern does not put core files into the process's folder")
    try:
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    except PermissionError:
        pytest.skip("core files are limited here")
    summary("--pid", child.pid, "--output", tmp_path / "live", "--unkeyed")
    child.process.communicate("abort\n")
    (path,) = (tmp_path / "child").glob("core*")
    summary("--core", path, "--output", tmp_path / "dead", "--unkeyed")
    for name, pages in (("known", 16), ("large", 1024)):
        live = region(tmp_path / "live", child.vpn[name], pages)
        assert live
        assert region(tmp_path / "dead", child.vpn[name], pages) == live
