"""The documents name every key and every statistic, and say of them what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ksmcluster.config import Scenario, load
from ksmcluster.config.compaction import CompactionScenario
from ksmcluster.config.ksmd import KsmConfig
from ksmcluster.config.problems import tables
from ksmcluster.experiments.sweeps.sweep_result import SWEEP_PICTURES
from ksmcluster.report.plots.kinds import KINDS
from tests.ksmcluster.conftest import check_text
from tests.ksmcluster.results.doc_tables import filled, markers
from tests.paths import DOCS


@pytest.mark.parametrize("name", ["config.md", "results.md", "compaction.md", "kernels.md"])
def test_tables_are_up_to_date(name: str) -> None:
    document = DOCS / name
    check_text(document, filled(document.read_text()))


def test_every_table_is_there() -> None:
    assert markers((DOCS / "config.md").read_text()) == [name for name in tables(Scenario) if name]
    compact = [f"compact.{name}" for name in tables(CompactionScenario) if name]
    assert markers((DOCS / "compaction.md").read_text()) == compact
    assert markers((DOCS / "kernels.md").read_text()) == ["kernels", "kernel_rules"]
    assert markers((DOCS / "results.md").read_text()) == [
        *("gauges", "counters", "of_process", "derived", "huge_pages", "timing")
    ]


def test_every_key_has_a_meaning() -> None:
    for name, table in [*tables(Scenario).items(), *tables(CompactionScenario).items()]:
        for key, field in table.model_fields.items():
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("name", ["README.md", "docs/config.md", "docs/pictures.md", "docs/sweep.md"])
def test_examples_in_python(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run, and print what is said behind them, if anything."""
    blocks = re.findall(r"```(python|text)\n(.*?)```", (DOCS.parent / name).read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks:
        if kind == "python":
            capsys.readouterr()
            exec(text, {})
        else:
            assert capsys.readouterr().out == text


def test_knobs_of_the_real_machine() -> None:
    """They are those of the scenario `default`; all others are the kernel's own."""
    lines = re.findall(r"^echo (\d+) > (\w+)", (DOCS / "results.md").read_text(), re.MULTILINE)
    knobs = {name: int(value) for value, name in lines}
    assert KsmConfig().model_dump() | knobs == load().ksm.model_dump()


def test_the_example_is_a_scenario() -> None:
    example = re.search(r"```toml\n(.*?)```", (DOCS / "config.md").read_text(), re.DOTALL)
    assert example
    load(tomllib.loads(example[1]))


def test_every_kind_of_picture_is_described() -> None:
    text = (DOCS / "pictures.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [*KINDS, *SWEEP_PICTURES]
