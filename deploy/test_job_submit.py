"""A run inside `ray job submit`: it joins the job's cluster and starts no second Ray (`make job-submit`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SIMULATE = ("simulate", "tiny", "--quiet")


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of the dashboard of a Ray cluster, which takes jobs."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        port, dashboard_port = first.getsockname()[1], second.getsockname()[1]
    folder = Path(f"/tmp/ksmcluster-jobs-{os.getpid()}")
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = own | {"RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    options = [f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={folder}", "--num-cpus=2"]
    folder.mkdir()
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", "--include-dashboard=true", *options],
            env=environment,
            stdout=log,
            stderr=log,
        ) as head,
    ):
        address = f"http://127.0.0.1:{dashboard_port}"
        try:
            wait_for_jobs(address, head)
            yield address
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait(timeout=60)
    shutil.rmtree(folder)


def wait_for_jobs(address: str, head: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and head.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/api/jobs/", timeout=10):
            return
        time.sleep(0.5)
    raise AssertionError(f"no Ray with a dashboard at {address}")


def test_a_job_runs_on_its_own_cluster(dashboard: str, tmp_path: Path) -> None:
    ray_folder, results = tmp_path / "ray", tmp_path / "results"
    variables = {"env_vars": {"RAY_TMPDIR": str(ray_folder), "PATH": f"{BIN}:{os.environ['PATH']}"}}
    submit = ["job", "submit", "--address", dashboard, "--runtime-env-json", json.dumps(variables)]
    done = subprocess.run(
        [BIN / "ray", *submit, "--", "ksmcluster", *SIMULATE, "--output", str(results)],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not ray_folder.exists(), "a second Ray was started"
    inline = [BIN / "ksmcluster", *SIMULATE, "--engine", "inline", "--json"]
    expected = json.loads(subprocess.run(inline, check=True, capture_output=True).stdout)
    assert json.loads((results / "summary.json").read_text()) == expected
    assert json.loads((results / "provenance.json").read_text())["timing"]["nodes_per_actor"] == 1
