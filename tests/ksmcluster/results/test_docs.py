"""The documents name every key and every statistic, and say of them what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cluster.script.parser import ScriptError, parse
from ksmcluster.config import Scenario, load
from ksmcluster.config.compaction import CompactionScenario
from ksmcluster.config.ksmd import KsmConfig
from ksmcluster.config.problems import tables
from ksmcluster.experiments.sweeps.sweep_result import SWEEP_PICTURES
from ksmcluster.report.plots.kinds import KINDS
from tests.ksmcluster.conftest import check_text
from tests.ksmcluster.results.doc_tables import filled, markers
from tests.paths import DOCS

CONFIGURATION = DOCS / "reference" / "configuration.md"
RESULTS = DOCS / "reference" / "results.md"
COMPACTION = DOCS / "reference" / "compaction.md"
COMMANDS = DOCS / "reference" / "commands.md"
KERNELS = DOCS / "reference" / "kernels.md"
LIMITS = DOCS / "reference" / "limits.md"


@pytest.mark.parametrize(
    "document", [CONFIGURATION, RESULTS, COMPACTION, COMMANDS, KERNELS, LIMITS], ids=lambda file: file.name
)
def test_tables_are_up_to_date(document: Path) -> None:
    check_text(document, filled(document.read_text()))


def test_every_table_is_there() -> None:
    assert markers(CONFIGURATION.read_text()) == [name for name in tables(Scenario) if name]
    compact = [f"compact.{name}" for name in tables(CompactionScenario) if name]
    assert markers(COMPACTION.read_text()) == compact
    assert markers(LIMITS.read_text()) == ["limits"]
    assert markers(KERNELS.read_text()) == [
        *("kernels", "kernel_rules", "compaction_kernels", "compaction_rules")
    ]
    assert markers(RESULTS.read_text()) == [
        *("gauges", "counters", "of_process", "of_pair", "derived", "huge_pages", "timing")
    ]


def test_every_key_has_a_meaning() -> None:
    for name, table in [*tables(Scenario).items(), *tables(CompactionScenario).items()]:
        for key, field in table.model_fields.items():
            assert field.description, f"{name}.{key}"


#: Pages whose blocks of Python run as they are, one after the other.
WITH_PYTHON = [
    DOCS.parent / "README.md",
    CONFIGURATION,
    RESULTS,
    *(DOCS / "howto" / name for name in ("dataframes.md", "notebooks.md", "pictures.md", "sweeps.md")),
]


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda file: file.name)
def test_examples_in_python(
    document: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run, and print what is said behind them, if anything."""
    text = document.read_text()
    for package in ("duckdb", "pandas"):
        if f"import {package}" in text:
            pytest.importorskip(package)
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
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
    text = (DOCS / "howto" / "real-machine.md").read_text()
    lines = re.findall(r"^echo (\d+) > (\w+)", text, re.MULTILINE)
    knobs = {name: int(value) for value, name in lines}
    assert KsmConfig().model_dump() | knobs == load().ksm.model_dump()


def test_the_example_is_a_scenario() -> None:
    example = re.search(r"```toml\n(.*?)```", CONFIGURATION.read_text(), re.DOTALL)
    assert example
    load(tomllib.loads(example[1]))


def test_every_kind_of_picture_is_described() -> None:
    text = (DOCS / "howto" / "pictures.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [*dict.fromkeys([*KINDS, *SWEEP_PICTURES])]


def test_every_operation_of_scripts_is_described() -> None:
    with pytest.raises(ScriptError) as caught:
        parse("?")
    operations = caught.value.message.partition("write one of ")[2].split(", ")
    text = (DOCS / "reference" / "scripts.md").read_text()
    assert {name for name in operations if f"`{name}" not in text} == set()
