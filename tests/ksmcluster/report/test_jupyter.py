"""Text is text inside Jupyter, too, where rich would show it as a cell's output instead."""

from __future__ import annotations

import builtins

import pytest
from rich.console import Console

import ksmcluster
from ksmcluster.config import Overrides, load_compaction
from ksmcluster.results.result import Result
from tests.ksmcluster.conftest import Run

SMALL = Overrides(2, settings=("machine.memory_per_node=16MiB",))


class ZMQInteractiveShell:
    """A class of this name is what rich takes for Jupyter."""


def enter_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    assert Console().is_jupyter


def test_a_result_is_text(
    result: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = str(result)
    enter_jupyter(monkeypatch)
    assert f"{result}" == outside != ""
    assert capsys.readouterr() == ("", "")


def test_a_result_of_compact_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ksmcluster.compact(load_compaction("compaction-gpu", SMALL), engine="inline")
    outside = str(result)
    enter_jupyter(monkeypatch)
    assert f"{result}" == outside != ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("simulate tiny --engine inline --quiet", "Two small nodes"),
        ("compact --nodes 1 --set machine.memory_per_node=16MiB --engine inline --quiet", "Free blocks"),
        ("bench compaction --short --nodes 1 --quiet", "Compaction of compaction-zram"),
    ],
)
def test_reports_of_commands_are_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: str, text: str
) -> None:
    enter_jupyter(monkeypatch)
    ran = run(*arguments.split())
    assert ran.code == 0
    assert text in ran.out
