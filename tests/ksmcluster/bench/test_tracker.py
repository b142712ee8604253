"""The file for trackers, and the arithmetic of comparisons, by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ksmcluster.bench.tools.measure import Measure, spread
from ksmcluster.bench.tools.show import shown_changes
from ksmcluster.bench.tools.tracker import Change, changes, parse_share, read_baseline, to_json
from ksmcluster.report.console import printed
from ksmcluster.system.errors import UserError


def test_file() -> None:
    measures = [
        Measure("merging", "x", (3.0, 1.0, 2.5), "12 pages/s"),
        Measure("steady", "pages/calibration", (1234.5,)),
    ]
    assert json.loads(to_json(measures)) == [
        {
            "name": "merging",
            "unit": "x",
            "value": 2.5,
            "range": "1 to 3",
            "extra": "12 pages/s; median of 3",
        },
        {
            "name": "steady",
            "unit": "pages/calibration",
            "value": 1234.5,
            "range": "1,234",
            "extra": "median of 1",
        },
    ]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(to_json([Measure("a", "x", (1.0, 2.0)), Measure("b", "x", (7.0,))]))
    assert read_baseline(file) == {"a": 1.5, "b": 7.0}


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[1]", '[{"name": "a"}]', '[{"name": "a", "value": "fast"}]', "[[]]"]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(text)
    with pytest.raises(UserError, match="not a file that --json wrote"):
        read_baseline(file)


def test_baselines_of_nothing_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text('[{"name": "a", "value": 0}]')
    with pytest.raises(UserError, match="not finite and above 0"):
        read_baseline(file)
    with pytest.raises(UserError, match="No such file"):
        read_baseline(tmp_path / "gone.json")


def test_changes() -> None:
    baseline = {"a": 10.0, "b": 10.0, "gone": 1.0, "r": 100.0}
    measures = [
        Measure("a", "x", (7.0, 8.0, 9.0)),
        Measure("b", "x", (12.5,)),
        Measure("new", "x", (1.0,)),
        Measure("r", "moves/s", (1.0,)),
    ]
    found = changes(measures, baseline)
    assert [(change.name, change.before, change.now) for change in found] == [("a", 10, 8), ("b", 10, 12.5)]
    assert [change.share for change in found] == pytest.approx([0.2, -0.25])


def test_nothing_in_common() -> None:
    with pytest.raises(UserError, match="use the same sizes"):
        changes([Measure("a", "x", (1.0,))], {"b": 1.0})


def test_worse_ones_are_named() -> None:
    found = [Change("a", "x", 8.0, 6.0), Change("b", "x", 8.0, 7.0)]
    console = Console(file=io.StringIO(), color_system=None)
    last_lines = [printed(shown_changes(found, most), console).splitlines()[-1] for most in (0.2, 0.25)]
    assert last_lines == ["worse by more than 20 %: a", "nothing is worse by more than 25 %"]


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.2", 0.2), ("0%", 0.0), (" 5 % ", 0.05)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "much", "20", "100%", "-1%", "nan"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="give a share such as 20%"):
        parse_share(text)


def test_spread() -> None:
    assert spread((0.5, 2.25, 1.0)) == "0.5 to 2.25"
    assert spread((123456.7, 99.94)) == "99.9 to 123,457"
    assert spread((2.0, 2.0)) == "2"
