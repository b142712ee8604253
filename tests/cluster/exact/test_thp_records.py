"""Every record of a real kernel with huge pages is reproduced, field by field."""

from __future__ import annotations

from .oracle import THP_RECORDS, documents

DOCUMENTS = documents(THP_RECORDS)


def test_all_records_are_there() -> None:
    assert len(DOCUMENTS) == 270
