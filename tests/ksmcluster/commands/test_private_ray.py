"""A Ray of the command's own: what it listens on, and who can read its files and its token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from actors.watching.processes import descendants
from tests.ksmcluster.commands.test_ray import COMMAND, environment, found

__all__ = ["environment"]

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
LISTENING = "0A"


@contextmanager
def running(environment: dict[str, str], *options: str) -> Iterator[int]:
    """Run the command until the end of the context, which begins in a pass; its PID."""
    with subprocess.Popen(
        [*COMMAND, "--passes", "100000", *options],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        while not process.stderr.readline().startswith("pass 2 "):
            assert process.poll() is None
        try:
            yield process.pid
        finally:
            process.terminate()
            process.stderr.read()


def family_of(pid: int) -> set[int]:
    """A process and its descendants."""
    return {pid, *(one.pid for one in descendants([pid]))}


def open_files(pid: int) -> Iterator[tuple[Path, str]]:
    """A process's descriptors and what they lead to."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield link, str(link.readlink())


def addresses(pids: set[int]) -> list[str]:
    """Addresses that processes listen on, in hexadecimal digits as the kernel writes them."""
    lines = [
        line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()
    ]
    listening = {f"socket:[{line[9]}]": line[1].partition(":")[0] for line in lines if line[3] == LISTENING}
    return [listening[name] for pid in pids for _, name in open_files(pid) if name in listening]


def token_of(environment: dict[str, str]) -> str:
    """The token of the cluster, from the environment of its coordinator."""
    (pid,) = (pid for pid, line in found(environment, "environ") if line.startswith("ray::Coordinator"))
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (token,) = (value for name, _, value in (v.partition("=") for v in variables) if name == "RAY_AUTH_TOKEN")
    return token


def test_it_is_private(environment: dict[str, str]) -> None:
    folder = Path(environment["RAY_TMPDIR"])
    (home := folder / "home").mkdir()
    environment |= {"HOME": str(home), "RAY_TMPDIR": str(folder / "t")}
    with running(environment) as pid:
        family = family_of(pid)
        listening = addresses(family)
        assert len(listening) > len(family) / 2
        assert set(listening) <= LOOPBACK

        (outer,) = (folder / "t").iterdir()
        assert outer.stat().st_mode & 0o777 == 0o700
        shared = [
            link.stat().st_mode
            for number in family
            for link, name in open_files(number)
            if name.startswith("/dev/shm/")
        ]
        assert shared
        assert not any(mode & 0o077 for mode in shared)

        token = token_of(environment)
        assert len(token) == 64
        assert not [number for number in family if token in Path(f"/proc/{number}/cmdline").read_text()]
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert any("raylet" in path.name for path in files)
        assert not [path for path in files if token.encode() in path.read_bytes()]
        assert not (home / ".ray").exists()
    assert not list((folder / "t").iterdir())


@pytest.mark.parametrize(
    ("variables", "mode", "has_token"),
    [
        ({}, "token", True),
        ({"RAY_AUTH_MODE": "token"}, "token", True),
        ({"RAY_AUTH_MODE": "disabled"}, "disabled", False),
        ({"RAY_AUTH_TOKEN_PATH": "/token"}, "token", False),
    ],
)
def test_the_token_of_a_new_cluster(variables: dict[str, str], mode: str, has_token: bool) -> None:
    script = (
        "import os; from actors.own_ray import own_token; own_token()\n"
        "print(os.environ['RAY_AUTH_MODE'], len(os.environ.get('RAY_AUTH_TOKEN', '')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [mode, "64" if has_token else "0"]


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("/dev/null/ray", "no folder for it in /dev/null/ray: Not a directory; set RAY_TMPDIR"),
        ("/tmp/" + "x" * 60, "is too long for the paths of Ray's sockets"),
    ],
)
def test_a_folder_that_cannot_be(folder: str, says: str) -> None:
    check_refused(COMMAND, folder, says)


@pytest.mark.parametrize("command", ["replay {script} --engine ray", "bench scaling --short"])
def test_other_commands_whose_ray_does_not_start(command: str, tmp_path: Path) -> None:
    script = tmp_path / "script.scn"
    script.write_text("proc A\nmap A x 1\nscan\n")
    words = command.format(script=script).split()
    check_refused([*COMMAND[:3], *words], "/dev/null/ray", "no folder for it in /dev/null/ray: ")


def check_refused(command: Sequence[str], folder: str, says: str) -> None:
    done = subprocess.run(command, env={"RAY_TMPDIR": folder}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last


def test_a_long_folder_of_a_batch_system(environment: dict[str, str]) -> None:
    """Ray would fail there, as it does with RAY_TMPDIR."""
    long = Path(environment.pop("RAY_TMPDIR")) / ("x" * 60)
    long.mkdir()
    subprocess.run(COMMAND, env=environment | {"TMPDIR": str(long)}, capture_output=True, check=True)
    assert not list(long.iterdir())
