"""A run whose actors, or whose Ray, died too often: one line, exit code 1, and the finished passes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from actors.watching.processes import LinuxProcess, descendants
from ksmcluster import load_result
from tests.chaos.commands import differences

COMMAND = [sys.executable, "-m", "ksmcluster"]
#: Passes that take longer than the longest wait of a test.
ENDLESS = ["simulate", "tiny", "--passes", "100000", "--nodes-per-actor", "2"]


def environment(**others: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | others


def ended(
    *arguments: str, kill: str, when: str = "pass 3 ", by: int = signal.SIGKILL
) -> tuple[int, list[str]]:
    """Send a signal to a process of the command when it says this; return its exit code and what it says."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        while when not in process.stderr.readline():
            assert process.poll() is None
        os.kill(next(of_kind(process.pid, kill)).pid, by)
        said = process.stderr.read().splitlines()
        code = process.wait()
    return code, [line for line in said if not line.startswith("pass ")]


def of_kind(command: int, kind: str) -> Iterator[LinuxProcess]:
    return (one for one in descendants([command]) if kind in one.command())


def test_the_last_death_leaves_the_finished_passes(tmp_path: Path) -> None:
    output, checkpoint = tmp_path / "output", tmp_path / "checkpoint"
    keep = ["--checkpoint", str(checkpoint), "--checkpoint-every", "1p", "--output", str(output)]
    code, said = ended(
        *ENDLESS, *keep, "--max-failures", "0", kill="ray::NodeActor", when="checkpoint after pass 2:"
    )
    assert code == 1
    (line,) = (line for line in said if not line.startswith("checkpoint after"))
    assert line.startswith("error: a node actor of nodes 0 to 1 on ")
    assert " died: its process was killed or crashed, in pass " in line
    assert line.endswith(f"; continue with `ksmcluster resume {checkpoint}`")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["complete"] is False
    assert 2 <= summary["passes"] < 100_000
    assert summary["notes"][0].startswith(
        f"the run is incomplete; it ended after {summary['passes']} passes: a node actor of nodes 0 to 1"
    )
    found = load_result(output)
    assert "the run is incomplete" in " ".join(str(found).split())


def test_what_was_finished_is_that_of_a_complete_run(tmp_path: Path) -> None:
    ended(*ENDLESS, "--max-failures", "0", "--output", str(tmp_path / "partly"), kill="ray::Coordinator")
    partly = load_result(tmp_path / "partly")
    assert "processes" not in partly.summary and len(partly.processes["node"]) == 0
    passes = str(partly.summary["passes"])
    whole = ["simulate", "tiny", "--passes", passes, "--engine", "inline", "--quiet"]
    subprocess.run(
        [*COMMAND, *whole, "--output", str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL
    )
    # Those of the end are missing, and the scenario has another number of passes.
    assert differences(tmp_path / "partly", tmp_path / "whole") == [
        *("config.toml", "mappings.parquet", "node_pairs.parquet", "processes.parquet", "summary.json")
    ]


def test_the_death_of_the_head_is_said_and_the_checkpoint_is_good(tmp_path: Path) -> None:
    keep = ["--checkpoint", str(tmp_path / "checkpoint"), "--checkpoint-every", "1p"]
    start = ["simulate", "tiny", "--passes", "400"]
    code, said = ended(*start, *keep, kill="gcs_server", when="checkpoint after pass 2:")
    assert code == 1
    (line,) = (line for line in said if not line.startswith("checkpoint after"))
    assert line.startswith("error: the head of the Ray cluster is lost: ")
    for arguments in (["resume", keep[1]], [*start, "--engine", "inline"]):
        output = ["--quiet", "--output", str(tmp_path / arguments[0])]
        subprocess.run(
            [*COMMAND, *arguments, *output], check=True, env=environment(), stdout=subprocess.DEVNULL
        )
    assert differences(tmp_path / "resume", tmp_path / "simulate") == []


def test_a_frozen_actor_is_replaced_after_the_stall_time() -> None:
    arguments = ["simulate", "tiny", "--passes", "400", "--stall-timeout", "10"]
    code, said = ended(*arguments, kill="ray::NodeActor", by=signal.SIGSTOP)
    assert code == 0
    assert any(" died: its process was killed or crashed, in pass " in line for line in said)


def test_leaving_takes_no_longer_than_its_limit() -> None:
    """Of a Ray whose head is frozen."""
    with subprocess.Popen(
        [*COMMAND, *ENDLESS], env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr
        while not process.stderr.readline().startswith("pass 2 "):
            assert process.poll() is None
        found = descendants([process.pid])
        os.kill(next(of_kind(process.pid, "gcs_server")).pid, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    end = time.monotonic() + 10
    while [one for one in found if Path(f"/proc/{one.pid}").exists()] and time.monotonic() < end:
        time.sleep(0.1)
    assert [one.command() for one in found if Path(f"/proc/{one.pid}").exists()] == []
