"""Passes made by hand, texts kept in tests/golden, and the command line as a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cluster.machine.census import Census
from cluster.machine.pass_result import PassResult
from cluster.spec.statistics import NODE_NAMES
from cluster.wire.commands import MappingName
from ksmcluster.cli import main
from ksmcluster.config import Overrides, Scenario, load
from ksmcluster.results.result import Result
from ksmcluster.results.timing import Timing
from tests.paths import GOLDEN

#: Set this to write the golden files, and the tables in docs/, instead of comparing with them.
UPDATE = "UPDATE_GOLDEN"


def check_text(path: Path, text: str) -> None:
    """The file holds this text; or does from now on, with UPDATE_GOLDEN=1."""
    if os.environ.get(UPDATE):
        path.write_text(text)
    assert path.exists(), f"{path} is not there: make it with {UPDATE}=1"
    assert text == path.read_text(), f"if this is meant, run again with {UPDATE}=1"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text looks the same wherever the tests are run."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    return lambda name, text: check_text(GOLDEN / name, text)


def pass_result(number: int, nodes: int) -> PassResult:
    """A pass in which node n has n + 1 times what node 0 has, and each pass saves more."""
    base = {
        "pages_mapped": 1000,
        "frames_used": 1000 - 100 * number,
        "frames_without_ksm": 1000 - 10 * number,
        "frames_free": 200 + 100 * number,
        "pages_shared": 20 * number,
        "pages_sharing": 90 * number,
        "pages_unshared": 300,
        "pages_volatile": 50,
        "rmap_items": 950,
        "ksm_merging_pages": 110 * number,
        "ksm_zero_pages": 10 * number,
        "ksm_frames": 30 * number,
        "ksm_mappings": 110 * number,
        "ksm_mappings_remote": 55 * number,
        "ksm_mappings_distance": 1650 * number,
        "pages_scanned": 1000,
        "pages_skipped": 7,
        "pages_merged": 90,
        "pages_merged_remote": 45,
        "bytes_sent": 5000,
        "ksmd_cpu_ns": 1_500_000,
        "cow_ksm": 3,
    }
    factors = np.arange(1, nodes + 1, dtype=np.int64)
    columns = {name: base.get(name, 0) * factors for name in NODE_NAMES}
    return PassResult(number, columns, number, 1.5 * number, 100 * number, windows=1, wall_seconds=0.25)


def census_of(config: Scenario) -> Census:
    """Two processes of each kind: the second has twice what the first has; and each region as much.

    Node 0 maps KSM frames of the last node, too.
    """
    kinds = np.repeat(np.arange(len(config.process)), 2)
    numbers = np.tile([0, 1], len(config.process))
    names = [MappingName(i, "", r.name) for i, kind in enumerate(config.process) for r in kind.region]
    #: pages_mapped, ksm_rmap_items, ksm_merging_pages, ksm_zero_pages, pages_unshared; no huge pages.
    base = np.array([1000, 900, 500, 40, 300, 0, 0])
    processes = base * (numbers + 1)[:, None]
    mappings = base * np.arange(1, len(names) + 1)[:, None]
    ksm_mappings = np.diag(np.full(config.machine.nodes, 7))
    ksm_mappings[0, [0, -1]] = 60, 50
    frames = np.array([3, 0, 12, 40])
    return Census(kinds, numbers, numbers, processes, tuple(names), mappings, frames, ksm_mappings)


def result_of(config: Scenario) -> Result:
    passes = [pass_result(n + 1, config.machine.nodes) for n in range(config.simulation.passes or 0)]
    passes[-1] = replace(passes[-1], census=census_of(config))
    return Result.of(config, passes, Timing("ray", 1, 4, wall_seconds=31.5, start_seconds=27.25))


@pytest.fixture(scope="session")
def result() -> Result:
    return result_of(load("tiny", Overrides(nodes=3, settings=("machine.memory_per_node=100MiB",))))


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`ksmcluster ...` in this process."""

    def ksmcluster(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ksmcluster", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        return Ran(code if isinstance(code, int) else 0, *capsys.readouterr())

    return ksmcluster
