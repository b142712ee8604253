"""The command's options, keys, raw images, full disks."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksmcluster.snapshot import Snapshot

PAGE = 4096
COMMAND = (
    "import typer; from ksmcluster.commands.capture import capture;"
    "app = typer.Typer(); app.command()(capture); app()"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Six pages: contents a, b, a, zero, zero, and b but for one byte."""
    path = tmp_path / "image"
    path.write_bytes(b"a" * PAGE + b"b" * PAGE + b"a" * PAGE + bytes(2 * PAGE) + b"b" * (PAGE - 1) + b"c")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(path: Path, process: int = 0) -> list[int]:
    with Snapshot.open(path) as snapshot:
        vpn, content = snapshot.pages(process)
    assert vpn.tolist() == list(range(len(vpn)))
    return content.tolist()


def test_image(image: Path, summary: Any, tmp_path: Path) -> None:
    (moment,) = summary("--image", image, "--output", tmp_path / "s")["moments"]
    assert (moment["pages"], moment["zero_pages"]) == (6, 2)
    assert (moment["distinct_contents"], moment["duplicate_pages"]) == (4, 2)
    a, b, *rest = contents(tmp_path / "s")
    assert rest[:3] == [a, 0, 0]
    assert len({a, b, rest[3], 0}) == 4
    with Snapshot.open(tmp_path / "s") as snapshot:
        (process,) = snapshot.processes
    assert (process.pid, process.name, process.source) == (None, "image", "image")
    assert [(m.start_vpn, m.pages) for m in process.mappings] == [(0, 6)]


def test_image_of_many_chunks(summary: Any, tmp_path: Path) -> None:
    pages = 1000
    image = tmp_path / "image"
    image.write_bytes(b"".join((page % 300).to_bytes(2, "little") * (PAGE // 2) for page in range(pages)))
    (moment,) = summary("--image", image, "--output", tmp_path / "s")["moments"]
    assert (moment["pages"], moment["zero_pages"]) == (pages, 4)
    assert moment["distinct_contents"] == 300
    found = contents(tmp_path / "s")
    assert found == found[:300] * 3 + found[:100]


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE + 1])
def test_image_of_parts_of_pages(size: int, fails: Any, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(size))
    line = fails("--image", tmp_path / "image", "--output", tmp_path / "s")
    assert f"{size} bytes" in line


def test_several_sources(image: Path, summary: Any, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"a" * PAGE)
    found = summary("--image", image, "--image", tmp_path / "other", "--output", tmp_path / "s")
    assert found["processes"] == 2
    assert found["moments"][0]["duplicate_pages"] == 3
    assert contents(tmp_path / "s", 1) == contents(tmp_path / "s", 0)[:1]


def test_keys(image: Path, summary: Any, tmp_path: Path) -> None:
    def take(name: str, *options: object) -> Snapshot:
        summary("--image", image, "--output", tmp_path / name, *options)
        with Snapshot.open(tmp_path / name) as snapshot:
            return snapshot

    key = tmp_path / "key"
    random, again = take("random"), take("again")
    keyed = take("keyed", "--key-file", key)
    assert key.stat().st_mode & 0o777 == 0o600
    secret = key.read_bytes()
    assert len(secret) == 32
    reused = take("reused", "--key-file", key)
    assert key.read_bytes() == secret
    open_, also_open = take("open", "--unkeyed"), take("also_open", "--unkeyed")

    snapshots = [random, again, keyed, reused, open_, also_open]
    names = ["random", "again", "keyed", "reused", "open", "also_open"]
    equal = {("keyed", "reused"), ("open", "also_open")}
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            same = i == j or (first, second) in equal or (second, first) in equal
            assert snapshots[i].comparable(snapshots[j]) == same
            assert (contents(tmp_path / first) == contents(tmp_path / second)) == same
    assert [s.metadata.key.mode for s in snapshots[1:5]] == ["random", "file", "file", "none"]
    written = (tmp_path / "keyed").read_bytes()
    assert secret not in written
    assert secret.hex().encode() not in written


def test_bad_keys(image: Path, fails: Any, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"1")
    for key, message in (("short", "1 bytes, not 32"), ("none/key", "no folder"), ("", "is a folder")):
        line = fails("--image", image, "--output", tmp_path / "s", "--key-file", tmp_path / key)
        assert message in line
    assert names(tmp_path) == ["image", "short"]


@pytest.mark.parametrize(
    ("key", "mode", "warnings"),
    [
        (bytes(range(100, 132)), 0o600, []),
        (bytes(range(100, 132)), 0o640, ["others can read"]),
        (bytes(range(100, 132)), 0o604, ["others can read"]),
        (bytes(32), 0o600, ["few different bytes"]),
        (b"ab" * 16, 0o644, ["others can read", "few different bytes"]),
        (b"my grandmother's old sewing box\n", 0o600, ["looks like a passphrase"]),
        ("Größter möglicher Schlüssel Öl".encode()[:32], 0o400, ["looks like a passphrase"]),
    ],
)
def test_weak_keys(image: Path, tmp_path: Path, key: bytes, mode: int, warnings: list[str]) -> None:
    """They are used all the same: snapshots that were made with them need them."""
    (path := tmp_path / "key").write_bytes(key)
    path.chmod(mode)
    options = ("--image", image, "--output", tmp_path / "s", "--key-file", path, "--quiet")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *options], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert len(lines) == len(warnings)
    for line, warning in zip(lines, warnings, strict=True):
        assert line.startswith("warning: ")
        assert warning in line
    assert (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "nothing to capture"),
        ("--pid 1 --pid 1", "given twice"),
        ("--image IMAGE --stop", "--stop needs a process"),
        ("--pid SELF --stop", "cannot stop itself"),
        ("--image IMAGE --key-file k --unkeyed", "exclude each other"),
        ("--pid 1 --interval 1", "belong together"),
        ("--pid 1 --count 2", "belong together"),
        ("--image IMAGE --interval 1 --count 2", "live processes"),
        ("--pid 1 --interval nan --count 2", "from 0 to 1e+09"),
        ("--pid 1 --interval 1e12 --count 2", "from 0 to 1e+09"),
        ("--pid 1 --after 1e308", "from 0 to 1e+09"),
        ("--pid 1 --interval 1 --count 0", "from 1 to 65536"),
        ("--pid 1 --interval 1 --count 65537", "from 1 to 65536"),
        ("--image none", "does not exist"),
    ],
)
def test_mistakes(options: str, message: str, image: Path, fails: Any, tmp_path: Path) -> None:
    meant = {"IMAGE": str(image), "SELF": str(os.getpid())}
    words = [meant.get(word, word) for word in options.split()]
    assert message in fails(*words, "--output", tmp_path / "s")
    assert names(tmp_path) == ["image"]


def test_bad_outputs(image: Path, fails: Any, tmp_path: Path) -> None:
    assert "is a folder" in fails("--image", image, "--output", tmp_path)
    assert "no directory" in fails("--image", image, "--output", tmp_path / "none" / "s")
    assert "no directory" in fails("--image", image, "--output", image / "s")
    assert "takes no files" in fails("--image", image, "--output", "/proc/s")
    assert "both input and output" in fails("--image", image, "--output", image)
    assert names(tmp_path) == ["image"]


def test_other_files_are_not_replaced(image: Path, fails: Any, tmp_path: Path) -> None:
    thesis, table = tmp_path / "thesis.tex", tmp_path / "table.parquet"
    thesis.write_bytes(b"years")
    pq.write_table(pa.table({"years": [1]}), table)
    (tmp_path / "link").symlink_to(thesis)
    for name in ("thesis.tex", "link", "nosuch/../thesis.tex", "table.parquet"):
        assert "did not write the existing file" in fails("--image", image, "--output", tmp_path / name)
    assert thesis.read_bytes() == b"years"
    assert pq.read_table(table).to_pydict() == {"years": [1]}
    assert names(tmp_path) == ["image", "link", "table.parquet", "thesis.tex"]


def test_devices_are_not_replaced(image: Path, fails: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is not a regular file" in fails("--image", image, "--output", tmp_path / "pipe")
    assert "it is not a regular file" in fails("--image", image, "--output", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_link_to_a_snapshot_stays_a_link(image: Path, summary: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("s")  # dangling at first
    for _ in range(2):
        summary("--image", image, "--output", tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert len(contents(tmp_path / "s")) == 6


def test_an_earlier_snapshot_is_replaced_only_by_a_whole_one(
    image: Path, summary: Any, fails: Any, tmp_path: Path
) -> None:
    output = tmp_path / "s"
    summary("--image", image, "--output", output, "--unkeyed")
    earlier = output.read_bytes()
    fails("--core", image, "--output", output)
    assert output.read_bytes() == earlier
    summary("--image", image, "--output", output)
    assert output.read_bytes() != earlier
    assert len(contents(output)) == 6


def test_summary_for_people(image: Path, run: Any, tmp_path: Path) -> None:
    result = run("--image", image, "--output", tmp_path / "s")
    assert result.exit_code == 0
    assert result.stderr == ""
    heading, row, last = result.stdout.splitlines()
    assert heading.split()[:5] == ["seconds", "pages", "zero", "distinct", "duplicate"]
    assert row.split() == ["0.0", "6", "2", "4", "2", "8.0", "KiB"]
    assert last.startswith("1 process, 24.0 KiB of memory in ")
    assert run("--image", image, "--output", tmp_path / "s", "--quiet").output == ""


def test_summary_says_what_one_moment_has(child: Any, run: Any, summary: Any, tmp_path: Path) -> None:
    arguments = ("--pid", child.pid, "--output", tmp_path / "s", "--interval", 0, "--count", 3)
    found = summary(*arguments)
    pages = [moment["pages"] for moment in found["moments"]]
    assert len(pages) == 3
    assert found["memory_bytes"] == max(pages) * PAGE
    last = run(*arguments).stdout.splitlines()[-1]
    assert last.startswith(f"1 process, 3 moments of up to {max(pages) * PAGE / 2**20:.1f} MiB of memory in ")


def random_image(path: Path) -> Path:
    """Enough distinct pages for a snapshot of more than 8 KiB."""
    path.write_bytes(os.urandom(1024 * PAGE))
    return path


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(full_disk: Path, fails: Any, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    line = fails("--image", image, "--output", full_disk / "s", code=1)
    assert f"{full_disk}/s cannot be written: No space left on device" in line
    assert not list(full_disk.iterdir())


def test_file_size_limit(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    folder = tmp_path / "out"
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, "--image", image, "--output", folder / "s"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line == "error: File too large"
    assert not list(folder.iterdir())


def test_progress_bar_on_a_terminal(image: Path, tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, "--image", image, "--output", tmp_path / "s"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert result.returncode == 0
    assert b"capturing" in shown
    assert b"capturing" not in result.stdout
