"""Runs separate programs, for measurements that need their own process."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ksmcluster.system.errors import UserError

_PATIENCE = 30.0  #: seconds for a program that was interrupted


def own_ray() -> dict[str, str]:
    """Return an environment in which a program's own Ray writes no token to the home and reports no usage."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def run_program(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the standard output of `python -m MODULE ARGUMENTS`. Raises UserError if it fails."""
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
    except (KeyboardInterrupt, SystemExit):  # a signal to this process, and perhaps not to the program
        process.terminate()
        _end(process)
        raise
    if process.returncode:
        raise UserError(f"{_shown(module, arguments)} failed: {_last_line(err)}")
    return out


def _end(process: subprocess.Popen[str]) -> None:
    """End the program: it was told to end, and gets some time to clean up."""
    try:
        process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _shown(module: str, arguments: Sequence[str]) -> str:
    return " ".join(["python -m", module, *arguments])


def _last_line(err: str) -> str:
    lines = err.strip().splitlines()
    return lines[-1] if lines else "no message"
