"""Small cases with huge pages on both engines, worked out by hand from the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.script.engine import Engine
from cluster.script.runner import ScriptTopology
from tests.cluster.machine.engines import exact, play, vector

Json = dict[str, Any]
#: Plays a script on a machine of kernel 6.18 and returns its document.
Play = Callable[..., Json]


@pytest.fixture(params=[exact, vector])
def played(request: pytest.FixtureRequest) -> Play:
    make: Callable[[str, ScriptTopology], Engine] = request.param

    def run(text: str, topology: ScriptTopology) -> Json:
        return play(text, make("6.18", topology), topology)

    return run


def test_pages_moved_of_a_partly_unmapped_huge_page(played: Play) -> None:
    """To move its first page splits it: that page has moved, but the 11 other pages of zeros are gone."""
    document = played(
        "proc A\nhugemap A x 512 node 0\nfill A x 12 500 seq 1\ndontneed A x 511 1\nmove A x 0 512 1",
        ScriptTopology(2),
    )
    assert [event["ret"] for event in document["events"] if event["what"] == "move"] == [1 + 499]


def test_page_out_splits_a_huge_page_once(played: Play) -> None:
    """One call pages out what is on both sides of a hole."""
    document = played(
        "proc A\nhugemap A x 512\nfill A x 0 512 seq 1\ndontneed A x 1 1\npageout A x 0 3\nrecord end",
        ScriptTopology(1, swap=True),
    )
    assert document["records"][-1]["vmstat"]["thp_split_page"] == 1


def test_fork_of_a_huge_page_that_was_advised_twice(played: Play) -> None:
    """It stays one VMA, with one PMD, though an exited process leaves room for the page advised again."""
    document = played(
        "proc A\nmap A x 2\nproc B\nhugemap B x 512\nmergeable B x\nmergeable B x 0 1\n"
        "exit A\nfork B C\nrecord end",
        ScriptTopology(1),
    )
    record = document["records"][-1]
    assert {region["p"]: region["thp"] for region in record["regions"]} == {"B": "2*512", "C": "2*512"}
    assert record["vmstat"]["thp_split_pmd"] == 0
