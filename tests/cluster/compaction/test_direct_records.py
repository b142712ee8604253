"""Records of direct compaction and kcompactd of several kernels, with the order of their free lists."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cluster.compaction.replay.compare import compare
from cluster.compaction.replay.direct import requests, rows, start
from cluster.compaction.replay.migration_record import load, moves_of, rules_of
from cluster.compaction.zone.kcompactd import Proactive
from tests.paths import DATA

RECORDS: dict[str, dict[str, Any]] = {
    f"{path.parent.name}/{record['name']}": record
    for path in sorted((DATA / "oracle_migrate").glob("*/direct.json.xz"))
    for record in load(path)
}


@pytest.mark.parametrize("name", RECORDS)
def test_record(name: str) -> None:
    assert compare(RECORDS[name]) is None


def test_there_are_records_of_every_kernel() -> None:
    kernels = [name.partition("/")[0] for name in RECORDS]
    assert {kernel: kernels.count(kernel) for kernel in kernels} == {"6.1": 2, "6.12": 5, "6.18": 6, "7.2": 5}


@pytest.mark.parametrize("kernel", ["6.12", "6.18", "7.2"])
def test_kcompactd_counts_every_page_that_it_scans(kernel: str) -> None:
    """Its second round meets free blocks of two pageblocks, which the first round has made."""
    record = RECORDS[f"{kernel}/kcompactd_proactive_p100"]
    memory, _driver = start(record)
    Proactive(memory, 100, rules_of(record)).run()
    expected = record["runs"][0]["vmstat_delta"]["compact_migrate_scanned"]
    assert memory.vmstat.compact_migrate_scanned == expected


@pytest.mark.parametrize(
    ("name", "equal"), [("6.1/direct_mayfail_p100", 7000), ("6.1/direct_noretry_p100", 4000)]
)
def test_moves_are_those_of_the_kernel_until_kswapd_comes_in_between(name: str, equal: int) -> None:
    record = RECORDS[name]
    memory, _driver = start(record)
    moves = rows([pair for request in requests(record, memory, record["trigger"]) for pair in request.moves])
    theirs = moves_of(record["runs"][0])
    assert np.array_equal(moves[:equal], theirs[:equal])


def test_a_compaction_that_ends_is_no_killed_one() -> None:
    record = json.loads(json.dumps(RECORDS["6.12/direct_mayfail_eagain100_killed"]))
    record["behaviour"] = []
    assert str(compare(record)) == 'run 0 ends "yes" "killed"'


def test_too_few_blocks_are_named() -> None:
    record = json.loads(json.dumps(RECORDS["7.2/direct_mayfail_p90_u512"]))
    record["runs"][0]["o9_at"] = record["runs"][0]["o9_at"][:20]
    assert str(compare(record)) == "run 0 blocks obtained 25 20"
