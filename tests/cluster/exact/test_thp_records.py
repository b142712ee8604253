"""Every record of a real kernel with huge pages is reproduced, field by field."""

from __future__ import annotations

import pytest

from cluster.script.record import compare

from .oracle import THP_RECORDS, Json, documents, replay

DOCUMENTS = documents(THP_RECORDS)


def test_all_records_are_there() -> None:
    assert len(DOCUMENTS) == 323


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    document = DOCUMENTS[name]
    ours = replay(document)
    if name.startswith("host"):
        _had_a_huge_zero_page(ours, document)
    assert compare(ours, document) is None


def _had_a_huge_zero_page(ours: Json, theirs: Json) -> None:
    """The host allocated its huge zero page before these scripts, so it counts none."""
    for record in theirs["records"]:
        assert record["vmstat"]["thp_zero_page_alloc"] == 0
    for record in ours["records"]:
        record["vmstat"]["thp_zero_page_alloc"] = 0


def test_a_machine_allocates_its_huge_zero_page_once() -> None:
    document = DOCUMENTS["qemu-7.2.13-n4/thp_huge_zero"]
    counts = [record["vmstat"]["thp_zero_page_alloc"] for record in replay(document)["records"]]
    assert counts == [0, 1, 1, 1, 1, 1, 1, 1]
