"""Every record of a real kernel is reproduced, field by field."""

from __future__ import annotations

import re

import pytest

from cluster.script.record import compare, dumps
from tests.paths import DOCS

from .oracle import KERNEL_RECORDS, LIFE_RECORDS, THP_RECORDS, documents, replay

DOCUMENTS = documents()


def test_all_records_are_there() -> None:
    assert len(DOCUMENTS) == 206


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    document = DOCUMENTS[name]
    assert compare(replay(document), document) is None


def test_the_page_on_validity_counts_them() -> None:
    """The rows of its table add up to all records and all steps."""
    text = (DOCS / "explanation" / "validity.md").read_text()
    rows = re.findall(r"^\|.* \| [\d, ]+ \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    numbers = [[int(number.replace(",", "")) for number in row] for row in rows]
    others = (THP_RECORDS, KERNEL_RECORDS, LIFE_RECORDS)
    every = [*DOCUMENTS.values(), *(record for folder in others for record in documents(folder).values())]
    steps = sum(len(document["records"]) for document in every)
    assert [sum(column) for column in zip(*numbers, strict=True)] == [len(every), steps]


def test_output_has_the_recorded_shape() -> None:
    document = DOCUMENTS["qemu-6.18.15-n4/numa_move_4_across0"]
    ours = replay(document)
    left_out = {"total_ms", "runs", "nondeterministic"}
    assert set(ours) == set(document) - left_out
    for mine, theirs in zip(ours["records"], document["records"], strict=True):
        assert list(mine) == list(theirs)
        assert list(mine["sysfs"]) == list(theirs["sysfs"])
        assert {p: list(stats) for p, stats in mine["procs"].items()} == {
            p: list(stats) for p, stats in theirs["procs"].items()
        }
    assert dumps(ours).count('"same"') == dumps(document).count('"same"')
