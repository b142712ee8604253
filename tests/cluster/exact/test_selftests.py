"""What the kernel's own tests of KSM check, as scripts with outcomes worked out by hand."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from cluster.script.record import unfold
from cluster.spec.profile import PROFILES
from ksmcluster.validate.replay import ReplayTarget, replay_script
from tests.paths import DOCS, SELFTESTS

DOCUMENT = DOCS / "explanation" / "selftests.md"
EXPECTED = tomllib.loads((SELFTESTS / "expected.toml").read_text())

Json = dict[str, Any]


def chosen(record: Json, wanted: Json) -> Json:
    """Of what a record says, what somebody has an expectation of."""
    regions = {f"{region['p']}.{region['r']}": region for region in record["regions"]}
    kept: Json = {}
    for what, values in wanted.items():
        if what in ("part", "kind"):
            kept[what] = {name: regions[name][what] for name in values}
        elif what == "procs":
            kept[what] = {p: {key: record["procs"][p][key] for key in stats} for p, stats in values.items()}
        else:
            kept[what] = {key: record[what][key] for key in values}
    return kept


def test_every_script_has_an_outcome() -> None:
    assert {path.stem for path in SELFTESTS.glob("*.scn")} == set(EXPECTED)


@pytest.mark.parametrize("engine", ["exact", "inline"])
@pytest.mark.parametrize("name", EXPECTED)
def test_selftest(name: str, engine: str) -> None:
    document = unfold(
        replay_script(name, SELFTESTS / f"{name}.scn", ReplayTarget(engine), PROFILES["6.18"], None)
    )
    assert "skipped" not in document
    assert not [event for event in document["events"] if event["err"]]
    records = {record["label"]: record for record in document["records"]}
    for label, wanted in EXPECTED[name].items():
        assert chosen(records[label], wanted) == wanted, label


def test_the_document_names_every_script() -> None:
    text = DOCUMENT.read_text()
    assert not [name for name in EXPECTED if f"`{name}`" not in text]
