"""The command on this host, where its KSM can be had; elsewhere these tests skip and say why."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import KSM
from ksmcluster.validate import child
from ksmcluster.validate.access import check_permission, check_unused
from ksmcluster.validate.knobs import Knobs

COMMAND = [sys.executable, "-c", "from ksmcluster.cli import main; main()", "validate"]

#: a mergeable page, until stdin is closed
USER_OF_KSM = """
import mmap, sys
memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[0] = 1
memory.madvise(mmap.MADV_MERGEABLE)
print("ready", flush=True)
sys.stdin.read()
"""

Validate = Callable[..., subprocess.CompletedProcess[str]]


def children_left() -> list[str]:
    """Processes started for a comparison that are still there."""
    return [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if child.__file__.encode() in path.read_bytes()
    ]


@pytest.fixture
def knobs() -> Knobs:
    """The knobs of the host; the test skips if they cannot be had."""
    host = Knobs()
    try:
        check_permission(KSM)
        _wait_until_unused(host)
    except UserError as error:
        pytest.skip(str(error))
    return host


def _wait_until_unused(host: Knobs) -> None:
    """Wait for what an earlier test has killed: processes take a moment to end."""
    for _ in range(100):
        with suppress(UserError):
            check_unused(host)
            return
        time.sleep(0.1)
    check_unused(host)


@pytest.fixture
def validate(knobs: Knobs) -> Validate:
    """`ksmcluster validate ...` in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if "KSM is in use" in ran.stderr or "started to use KSM" in ran.stderr:
            pytest.skip(ran.stderr)
        return ran

    return run
