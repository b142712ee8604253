"""Coding of sequences, comparison of documents, and files of records."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.script.record import (
    Difference,
    NoRecordsError,
    RecordError,
    compare,
    dumps,
    fold,
    load,
    rle,
    unfold,
    unrle,
)

SYSFS = {"full_scans": 1, "pages_shared": 2}


def document(**changes: object) -> dict[str, object]:
    records = [
        {"label": "scan@1", "line": 1, "sysfs": dict(SYSFS), "regions": [{"p": "A", "part": "0*2"}]},
        {"label": "scan@2", "line": 2, "sysfs": dict(SYSFS), "regions": [{"p": "A", "part": "0*2"}]},
    ]
    whole = {
        "scenario": "s",
        "kernel": "6.18.1",
        "topology": {"nodes": 1, "cpus": 1, "swap": False},
        "text": "",
        "events": [],
        "knobs": {"smart_scan": 0},
        "records": records,
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([7], "7"),
        ([3, 3, 3, 3, 7, 8, 9, -1], "3*4 7+3 -1"),
        ([0, 1], "0+2"),
        ([0, 1, 1], "0 1*2"),
        ([0, 1, 1, 1], "0 1*3"),
        ([5, 5], "5*2"),
        ([-2, -1, 0], "-2+3"),
        ([1, 2, 3, 3], "1+3 3"),
    ],
)
def test_rle(values: list[int], text: str) -> None:
    assert rle(values) == text
    assert unrle(text) == values


@given(st.lists(st.integers(-3, 6)))
def test_rle_round_trip(values: list[int]) -> None:
    assert unrle(rle(values)) == values


def test_folding_round_trip() -> None:
    folded = fold(document())
    assert [record["regions"] == "same" for record in folded["records"]] == [False, True]
    assert unfold(folded) == document()
    assert json.loads(dumps(document())) == folded


def test_equal_documents() -> None:
    assert compare(document(), fold(document(runs=3, kernel="6.18.2"))) is None


def test_the_first_difference_is_named() -> None:
    theirs = document()
    theirs["records"][1]["sysfs"]["pages_shared"] = 9
    theirs["records"][1]["regions"] = [{"p": "A", "part": "0+2"}]
    difference = compare(document(), theirs)
    assert difference == Difference("scan@2", "sysfs.pages_shared", 2, 9)
    assert str(difference) == "scan@2 sysfs.pages_shared 2 9"


def test_a_difference_within_a_region() -> None:
    theirs = document()
    theirs["records"][0]["regions"] = [{"p": "A", "part": "0+2"}]
    assert str(compare(document(), theirs)) == 'scan@1 regions[0].part "0*2" "0+2"'


def test_missing_records_events_and_fields() -> None:
    shorter = document(records=document()["records"][:1])
    assert str(compare(shorter, document())) == "end records 1 2"
    assert str(compare(document(events=[1]), document())) == "end events [1] []"
    difference = compare(document(), document(skipped="swap"))
    assert str(difference) == 'end skipped - "swap"'
    assert difference.as_json() == {"step": "end", "field": "skipped", "ours": None, "theirs": "swap"}


def test_long_values_are_cut_around_the_difference() -> None:
    ours, theirs = "0 " * 200 + "1", "0 " * 200 + "2"
    shown = str(Difference("s", "f", ours, theirs))
    assert len(shown) < 200
    assert '1" ' in shown
    assert shown.endswith('2"')


def test_load(tmp_path: Path) -> None:
    one, many = tmp_path / "one.json", tmp_path / "many.json.xz"
    one.write_text(json.dumps(document()))
    many.write_bytes(lzma.compress(json.dumps([document(), document()]).encode()))
    assert load(one) == [document()]
    assert load(many) == [document(), document()]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_load_refuses_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError):
        load(path)


def test_load_refuses_truncated_xz(tmp_path: Path) -> None:
    path = tmp_path / "x.json.xz"
    path.write_bytes(lzma.compress(json.dumps(document()).encode())[:-20])
    with pytest.raises(RecordError):
        load(path)


def test_load_tells_other_json_from_broken_records(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"speed": 1}')
    with pytest.raises(NoRecordsError):
        load(path)
    for broken in (document(records=[1]), document(text=1), document(topology={"nodes": "4"})):
        path.write_text(json.dumps(broken))
        with pytest.raises(RecordError):
            load(path)
