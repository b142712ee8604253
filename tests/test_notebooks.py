"""The notebooks of docs/ run from top to bottom; what cells show is fit to be seen."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths import DOCS

nbformat = pytest.importorskip("nbformat", reason="needs the extra notebook")
nbclient = pytest.importorskip("nbclient", reason="needs the extra notebook")

NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
#: Escape codes but for colours, which notebooks show as such.
ESCAPES = re.compile(r"\x1b(?!\[[0-9;]*m)")
pytestmark = pytest.mark.filterwarnings("ignore")


def executed(notebook: Any, folder: Path) -> list[dict[str, Any]]:
    """Return what the cells show, in their order."""
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts(outputs: list[dict[str, Any]]) -> Iterator[str]:
    for output in outputs:
        yield output.get("text", "")
        yield from map(str, output.get("data", {}).values())


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_a_notebook_runs(file: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(file, 4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    outputs = executed(notebook, tmp_path)
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data"}
    assert not any(ESCAPES.search(text) for text in texts(outputs))
    kinds = [set(output["data"]) for output in outputs]
    assert any("image/svg+xml" in kind for kind in kinds)
    bars = [output["data"]["text/plain"] for output in outputs if output["output_type"] == "display_data"]
    assert [bar.partition(":")[0] for bar in bars] == ["pass 4 of 4", "run 20 of 20"]


def test_a_command_in_a_cell_writes_lines(tmp_path: Path) -> None:
    """A cell gives its commands a terminal that shows colours, and nothing else."""
    commands = (
        "simulate tiny --engine inline",
        "sweep tiny --vary ksm.pages_to_scan=100,400 --output swept",
    )
    cells = [nbformat.v4.new_code_cell(f"!{sys.executable} -m ksmcluster {command}") for command in commands]
    outputs = executed(nbformat.v4.new_notebook(cells=cells), tmp_path)
    shown = "".join(texts(outputs))
    assert "pass 4 of 4: " in shown
    assert "run 2 of 2: " in shown
    assert not ESCAPES.search(shown)


def test_a_mistake_in_a_cell_is_one_line(tmp_path: Path) -> None:
    source = 'import ksmcluster\nksmcluster.simulate("tiny", engin="inline")'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        executed(notebook, tmp_path)
    assert caught.value.evalue == 'simulate: no argument engin; did you mean "engine"?'
