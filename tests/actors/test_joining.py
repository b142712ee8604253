"""Joining a Ray cluster: with a time limit, interruptibly, and inside a job the job's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from actors.run_options import RunOptions
from actors.runtime import check_working_directory
from cluster.spec.errors import SimulationError

COMMAND = [sys.executable, "-m", "ksmcluster.cli", "simulate", "tiny", "--quiet", "--json"]
#: Ray gives it to what a job runs.
JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"job_submission_id": "a"}})}


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A listener that never answers."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        yield listener


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def environment(**others: str) -> dict[str, str]:
    """No variables of Ray, except for the token of this process's cluster."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") or name.startswith("RAY_AUTH_")
    }
    return own | others


def command(*options: str, **others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], env=environment(**others), capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("by", ["option", "auto", "job"])
def test_a_cluster_that_never_answers_is_given_up(silent: socket.socket, by: str) -> None:
    address = address_of(silent)
    options = {"option": ["--address", address], "auto": ["--address", "auto"], "job": []}[by]
    others = {"option": {}, "auto": {"RAY_ADDRESS": address}, "job": JOB | {"RAY_ADDRESS": address}}[by]
    done = command(*options, "--connect-timeout", "1", **others)
    named = "auto" if by == "auto" else address
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"error: cannot join a Ray cluster at {named}: no answer within 1 s (--connect-timeout); "
        "check --address\n",
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_waiting_for_a_cluster_can_be_interrupted(
    silent: socket.socket, number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [*COMMAND, "--address", address_of(silent), "--connect-timeout", "100"],
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(number)
            assert process.wait(timeout=30) == code


def test_what_is_no_ray_cluster(silent: socket.socket) -> None:
    def hang_up() -> None:
        silent.accept()[0].close()

    server = Thread(target=hang_up)
    server.start()
    done = command("--address", address_of(silent))
    server.join()
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot join a Ray cluster at 127.0.0.1:")


@pytest.mark.parametrize(
    ("address", "variables", "way_out"),
    [
        ("head", {}, "give --address HOST:PORT, or auto"),
        ("ray://head:10001", {}, "give --address HOST:PORT, or auto"),
        ("auto", {"RAY_ADDRESS": "http://head:8265"}, "auto takes RAY_ADDRESS: unset it"),
    ],
)
def test_what_is_no_address(address: str, variables: dict[str, str], way_out: str) -> None:
    done = command("--address", address, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot join a Ray cluster at {address}: Invalid address format")
    assert way_out in line


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SimulationError, match="the working directory is gone; change to another one"):
        check_working_directory()


def test_a_run_inside_a_job_starts_no_ray(ray_cluster: str, tmp_path: Path) -> None:
    done = command(RAY_ADDRESS=ray_cluster, RAY_TMPDIR=str(tmp_path / "ray"), **JOB)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ray").exists()
    inline = json.loads(command("--engine", "inline").stdout)
    assert json.loads(done.stdout) == inline


@pytest.mark.parametrize("way", ["connected(sys.argv[1])", "nullcontext(join(sys.argv[1], 30))"])
def test_what_ray_says_of_repeated_tasks_is_not_on_stdout(ray_cluster: str, way: str) -> None:
    """Results go there: `--json` of a run that has lost an actor is JSON. Workers of sweeps call `join`."""
    program = f"""
import logging, sys
from contextlib import nullcontext
from threading import Event
from actors.runtime import connected, environment, join
environment()
with {way}:
    from ray._private.utils import push_error_to_driver
    from ray._private.worker import global_worker
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    logger = logging.getLogger("ray")
    logger.setLevel(logging.INFO)
    said = Event()
    logger.addFilter(lambda record: said.set() or True)
    while not said.wait(0.2):  # what is said before a driver listens is lost
        push_error_to_driver(global_worker, "task", "a task is repeated")
print("{{}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, ray_cluster], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{}\n"
    assert "a task is repeated" in done.stderr


def test_the_cluster_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_ADDRESS may be that of a dashboard, for `ray job submit`: outside a job it is not ours."""
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert RunOptions().cluster is None
    assert RunOptions(address="head:6379").cluster == "head:6379"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert RunOptions().cluster == "head:6379"
    assert RunOptions(address="other:6379").cluster == "other:6379"
