"""Damaged scripts and records never give a traceback: they replay, or one line says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import cluster.compaction.replay.migration_record
import cluster.script.record
from ksmcluster.commands.replay import replay
from tests.paths import DATA

app = typer.Typer()
app.command()(replay)

#: Records short enough to replay in no time.
KSM = [
    document
    for document in cluster.script.record.load(DATA / "oracle" / "host-6.18.json.xz")
    if len(json.dumps(document)) < 10_000
]
MIGRATION = [
    record
    for path in sorted((DATA / "oracle_migrate").rglob("*.json.xz"))
    for record in cluster.compaction.replay.migration_record.load(path)
    if len(json.dumps(record)) < 20_000
]
SCRIPTS = [document["text"] for document in KSM]
WORDS = sorted({word for text in SCRIPTS for word in text.split() if not word.startswith("#")})
ODD_WORDS = ["-1", "0", "0x10", "99999999999999999999", "1e3", "\x00", "\x1b[31m", "#", "é", "node", "swap"]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=6)
    | st.sampled_from(
        ["same", "1*3", "order 9 mayfail 5", "par compact compact 3", "0 1 100 iso 3", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn, records: list[Any]) -> Any:
    """A record in which up to three values, wherever they are, are missing or something else."""
    holder = [json.loads(json.dumps(draw(st.sampled_from(records))))]
    for _ in range(draw(st.integers(1, 3))):
        where: Any = holder
        while True:
            keys = sorted(where) if isinstance(where, dict) else range(len(where))
            key = draw(st.sampled_from(keys))
            if not isinstance(where[key], dict | list) or not where[key] or draw(st.booleans()):
                break
            where = where[key]
        if where is not holder and draw(st.booleans()):
            del where[key]
        else:
            where[key] = draw(VALUES)
    return holder[0]


@st.composite
def damaged_scripts(draw: st.DrawFn) -> str:
    """A script with words that belong elsewhere, or nowhere, and perhaps without its end."""
    text = draw(st.sampled_from(SCRIPTS))
    lines = [line.split() for line in text.split("\n")]
    for _ in range(draw(st.integers(0, 4))):
        words = draw(st.sampled_from(lines))
        at = draw(st.integers(0, len(words)))
        words[at : at + draw(st.integers(0, 1))] = [draw(st.sampled_from(WORDS) | st.sampled_from(ODD_WORDS))]
    text = "\n".join(" ".join(words) for words in lines)
    return text[: draw(st.integers(0, len(text)) | st.just(len(text)))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("garbage")


def check(path: Path, *arguments: str) -> None:
    result = CliRunner().invoke(app, [str(path), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code in (0, 1, 2)
    if result.exit_code == 2:
        assert result.stderr.startswith(str(path))
        assert len(result.stderr.splitlines()) == 1
    elif "--json" in arguments:
        json.loads(result.stdout)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(text=damaged_scripts())
def test_scripts(folder: Path, text: str) -> None:
    (folder / "x.scn").write_text(text, newline="")
    check(folder / "x.scn", "--json")


@FUZZ
@given(record=damaged(KSM), as_json=st.booleans())
def test_records(folder: Path, record: Any, as_json: bool) -> None:
    (folder / "x.json").write_text(json.dumps(record))
    check(folder / "x.json", "--compare", *(["--json"] if as_json else []))


@FUZZ
@given(record=damaged(MIGRATION), as_json=st.booleans())
def test_migration_records(folder: Path, record: Any, as_json: bool) -> None:
    (folder / "x.json").write_text(json.dumps(record))
    check(folder / "x.json", "--compare", *(["--json"] if as_json else []))


@FUZZ
@given(record=st.sampled_from([*KSM, *MIGRATION]), data=st.data())
def test_records_cut_off(folder: Path, record: Any, data: st.DataObject) -> None:
    text = json.dumps(record)
    (folder / "x.json").write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    check(folder / "x.json", "--compare")
