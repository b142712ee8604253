"""Completion of the command line, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ksmcluster.config import bundled, bundled_compactions

BIN = Path(sys.executable).parent
SCRIPT = """
eval "$(ksmcluster --show-completion bash)"
COMP_WORDS=(ksmcluster "$@")
COMP_CWORD=$#
_ksmcluster_completion ksmcluster
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completions(*words: str) -> list[str]:
    """Return what bash offers for the last of the words after `ksmcluster`."""
    done = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT, "bash", *words],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_commands_and_their_options() -> None:
    assert completions("comp") == ["compact", "compare"]
    assert completions("bench", "sc") == ["scaling"]
    assert completions("simulate", "--nodes-") == ["--nodes-per-actor"]
    assert completions("simulate", "--engine", "") == ["ray", "inline"]


@pytest.mark.parametrize(
    ("command", "scenarios"),
    [
        (["simulate"], bundled()),
        (["compact"], bundled_compactions()),
        (["config", "show"], [*bundled(), *bundled_compactions()]),
    ],
)
def test_scenarios_of_each_command(command: list[str], scenarios: list[str]) -> None:
    assert completions(*command, "") == scenarios
    first = scenarios[0]
    assert completions(*command, first) == [first]


def test_a_command_that_does_not_exist_prints_no_error() -> None:
    completions("simulat", "")
