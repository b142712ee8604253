"""Small real runs, whose results are drawn and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

import ksmcluster
from ksmcluster.config import Overrides, load_compaction
from ksmcluster.report.run_data import RunData
from ksmcluster.report.saved_runs import read_runs
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.result import Result

ZRAM = Overrides(2, settings=("machine.memory_per_node=16MiB",))


def simulated(*settings: str, scenario: str = "tiny") -> Result:
    return ksmcluster.simulate(ksmcluster.load(scenario, Overrides(settings=settings)), engine="inline")


@pytest.fixture(scope="session")
def real_result() -> Result:
    return simulated()


@pytest.fixture(scope="session")
def compacted() -> CompactionResult:
    return ksmcluster.compact(load_compaction("compaction-zram", ZRAM), engine="inline")


@pytest.fixture(scope="session")
def outputs(
    tmp_path_factory: pytest.TempPathFactory, real_result: Result, compacted: CompactionResult
) -> Path:
    """Results in directories: tiny, within (nodes merge for themselves), zram, and both (KSM and zram)."""
    directory = tmp_path_factory.mktemp("outputs")
    real_result.save(directory / "tiny")
    simulated("ksm.merge_across_nodes=0").save(directory / "within")
    compacted.save(directory / "zram")
    small = Overrides(nodes=2, passes=2)
    ksmcluster.simulate(ksmcluster.load("ksm-compaction", small), engine="inline").save(directory / "both")
    return directory


@pytest.fixture
def tiny(outputs: Path) -> RunData:
    (run,) = read_runs([outputs / "tiny"])
    return run
