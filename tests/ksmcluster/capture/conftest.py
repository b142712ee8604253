"""Real processes with known pages, and the command as its users run it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from ksmcluster.commands.capture import capture

CHILD = """
import ctypes, mmap, os, sys

PAGE = 4096
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
regions = {}

def region(name, pages, file=-1, flags=ANONYMOUS):
    memory = mmap.mmap(file, pages * PAGE, flags=flags)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    holder = ctypes.c_char.from_buffer(memory)
    regions[name] = (memory, ctypes.addressof(holder) // PAGE, holder)
    return memory

def fill(memory, page, text):
    memory[page * PAGE:(page + 1) * PAGE] = (text * PAGE)[:PAGE]

known = region("known", 16)
for page in range(4):
    fill(known, page, b"same")
for page in range(4, 7):
    fill(known, page, b"page %d" % page)
for page in (7, 8):
    fill(known, page, b"x")
    fill(known, page, b"\\0")
known[9 * PAGE]  # read alone: the kernel maps its shared zero page

large = region("large", 1024)
for page in range(1024):
    fill(large, page, b"%4d" % page)

shared = region("shared", 2, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
fill(shared, 0, b"shared")
fill(shared, 1, b"shared")

with open(sys.argv[1], "wb") as file:
    file.write(b"f" * (3 * PAGE))
with open(sys.argv[1], "r+b") as file:
    copied = region("copied", 3, file.fileno(), mmap.MAP_PRIVATE)
copied[0]
fill(copied, 1, b"same")

print(*(f"{name} {vpn}" for name, (_, vpn, _) in regions.items()), flush=True)
writes = 0
for line in sys.stdin:
    if line == "write\\n":
        writes += 1
        fill(known, 4, b"write %d" % writes)
    elif line == "unmap\\n":
        memory, _, holder = regions.pop("large")
        large = holder = None
        import gc; gc.collect()
        memory.close()
    elif line == "abort\\n":
        os.abort()
    print("done", flush=True)
"""
"""Waits for commands after laying out pages whose contents the tests know."""


@dataclass
class Child:
    """A process whose pages are known; `vpn` holds the first page number of each region."""

    process: subprocess.Popen[str]
    vpn: dict[str, int]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def tell(self, command: str) -> None:
        """Have the child do something and wait until it is done."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def started(folder: Path) -> Iterator[Child]:
    """A child that lives within the block, with files of its own in `folder`."""
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder / "mapped")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        assert process.stdout
        words = process.stdout.readline().split()
        yield Child(process, dict(zip(words[::2], map(int, words[1::2]), strict=True)))
        process.kill()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    with started(tmp_path / "child") as child:
        yield child


Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(capture)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def summary(run: Run) -> Callable[..., dict[str, Any]]:
    """Run the command, which must succeed, and give its JSON summary."""

    def invoke(*arguments: object) -> dict[str, Any]:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return invoke


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run the command, which must exit with `code`, and give its one line of error."""

    def invoke(*arguments: object, code: int = 2) -> str:
        result = run(*arguments)
        assert result.exit_code == code, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert result.stdout == ""
        return line

    return invoke
