"""Joining a cluster that `ray start` has made, and that asks for the token in the user's home."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
JOIN = [sys.executable, "-m", "ksmcluster.cli", "simulate", "tiny", "--quiet", "--address"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def user() -> Iterator[dict[str, str]]:
    """The environment of somebody who has a home with a token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Not pytest's directory: names of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ksm") as home:
        token = Path(home, ".ray", "auth_token")
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        yield own | {"HOME": home, "RAY_TMPDIR": home, "PYTHONPATH": str(Path.cwd())}


@pytest.fixture(scope="module", params=["", "disabled"], ids=["token", "no token"])
def cluster(user: dict[str, str], request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """The address of a cluster, and whether it asks for the token."""
    port = free_port()
    environment = user | ({"RAY_AUTH_MODE": request.param} if request.param else {})
    with subprocess.Popen(
        [*START, f"--port={port}", "--include-dashboard=false", "--object-store-memory=100000000"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as ray:
        try:
            deadline = time.monotonic() + 120
            while not listening(port):
                assert ray.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"127.0.0.1:{port}", not request.param
        finally:
            os.killpg(ray.pid, signal.SIGKILL)


def test_the_token_is_used_if_the_cluster_asks_for_it(
    cluster: tuple[str, bool], user: dict[str, str]
) -> None:
    ran = subprocess.run([*JOIN, cluster[0]], env=user, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("more", [{"HOME": "/nowhere"}, {"RAY_AUTH_TOKEN": "f" * 64}], ids=["none", "wrong"])
def test_one_line_without_the_right_token(
    cluster: tuple[str, bool], user: dict[str, str], more: dict[str, str]
) -> None:
    address, asks = cluster
    if not asks:
        pytest.skip("asks for no token")
    ran = subprocess.run([*JOIN, address], env=user | more, capture_output=True, text=True)
    (line,) = ran.stderr.splitlines()
    assert ran.returncode == 2
    assert line.startswith(f"error: the Ray cluster at {address} asks for its token")
    assert "RAY_AUTH_TOKEN" in line
