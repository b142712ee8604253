"""Replaying migration records of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.compaction.replay.blocks import compare_compact, compare_zram
from cluster.compaction.replay.calls import compare_calls
from cluster.compaction.replay.direct import compare_direct
from cluster.compaction.replay.lru import compare_lru
from cluster.compaction.replay.migration_record import load
from cluster.script.record import Difference, Json, RecordError


def compare(record: Json) -> Difference | None:
    """Do what the record's trigger did, from the recorded start; return the first difference, if any.

    Raises RecordError if the record lacks something that is needed, or has a wrong value.
    """
    try:
        return _comparison(record)(record)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise RecordError(f"record {record['name']}: {type(error).__name__}: {error}") from error


def _comparison(record: Json) -> Callable[[Json], Difference | None]:
    if record["kind"] == "callbacks":
        return compare_calls
    if record["kind"] == "zram":
        return compare_zram
    if "anon" in record:
        return compare_lru
    return compare_compact if record["trigger"] == "compact" else compare_direct


def compare_file(path: Path) -> Iterator[tuple[str, Difference | None]]:
    """Yield name and first difference of each migration record in a file; nothing if it holds none.

    Raises RecordError, or OSError if the file cannot be read.
    """
    for record in load(path):
        yield record["name"], compare(record)
