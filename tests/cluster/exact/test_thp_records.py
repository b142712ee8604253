"""Every record of a real kernel with huge pages is reproduced, field by field."""

from __future__ import annotations

import pytest

from cluster.script.record import compare

from .oracle import THP_RECORDS, Json, documents, replay

DOCUMENTS = documents(THP_RECORDS)
#: The host had its huge zero page already when this script read one.
ZERO_PAGE_WAS_THERE = "host-6.18/thp_huge_zero"


def test_all_records_are_there() -> None:
    assert len(DOCUMENTS) == 270


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - {ZERO_PAGE_WAS_THERE}))
def test_record_is_reproduced(name: str) -> None:
    document = DOCUMENTS[name]
    assert compare(replay(document), document) is None


def test_a_machine_allocates_its_huge_zero_page_once() -> None:
    ours, theirs = replay(DOCUMENTS[ZERO_PAGE_WAS_THERE]), DOCUMENTS[ZERO_PAGE_WAS_THERE]
    assert [_take_zero_page_alloc(record) for record in ours["records"]] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert {_take_zero_page_alloc(record) for record in theirs["records"]} == {0}
    assert compare(ours, theirs) is None


def _take_zero_page_alloc(record: Json) -> int:
    return record["vmstat"].pop("thp_zero_page_alloc")
