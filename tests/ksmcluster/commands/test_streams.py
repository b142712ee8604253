"""Results are written whatever becomes of stdout and stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m ksmcluster.cli simulate tiny --engine inline --output out"


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">/dev/full", 1, "cannot write to standard output"),
        (">&-", 1, "cannot write to standard output"),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full 2>&1", 1, ""),
        ("<&- >&- 2>&-", 1, ""),
    ],
)
def test_the_result_is_written(tmp_path: Path, streams: str, code: int, said: str) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"{COMMAND} {streams}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "out" / "summary.json").is_file()
    # Nothing meant for a stream has come into a file that took its number.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("options", ["--output out", "--output out --checkpoint c"])
def test_a_working_directory_that_is_gone(tmp_path: Path, options: str) -> None:
    gone = tmp_path / "gone"
    script = (
        f"mkdir {gone}; cd {gone}; rmdir {gone}; {sys.executable} -m ksmcluster.cli simulate tiny {options}"
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
