"""Programs run beside this one: for what a process alone can tell."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ksmcluster.system.errors import UserError

_PATIENCE = 30.0  #: seconds for a program that was interrupted


def own_ray() -> dict[str, str]:
    """What a program that starts a Ray of its own needs, to leave no token in the user's home, nor report."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def run_program(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What `python -m MODULE ARGUMENTS` wrote to standard output. Raises UserError if it fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        out, err = process.communicate()
    except (KeyboardInterrupt, SystemExit):  # by a signal that came to this process, perhaps alone
        process.terminate()
        _end(process)
        raise
    if process.returncode:
        raise UserError(f"{_shown(module, arguments)} failed: {_last_line(err)}")
    return out


def _end(process: subprocess.Popen[str]) -> None:
    """It was told to end; it may have something to clear away."""
    try:
        process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _shown(module: str, arguments: Sequence[str]) -> str:
    return " ".join(["python -m", module, *arguments])


def _last_line(err: str) -> str:
    lines = err.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
