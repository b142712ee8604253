"""The tutorial works: its program and its commands run, one after the other, and draw the figure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.paths import DOCS

TUTORIAL = (DOCS / "tutorial" / "first-job.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)


def test_tutorial(tmp_path: Path) -> None:
    (program,) = blocks("python")
    (tmp_path / "job.py").write_text(program)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in blocks("sh"):
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}{done.stderr}"
    slow, fast = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("slow", "fast"))
    assert slow["derived"]["saved_bytes"] > 0
    assert fast["passes"] > slow["passes"]
    assert ET.parse(tmp_path / "saved.svg").getroot().tag.endswith("svg")
