"""Replaying migration records of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.compaction.replay.blocks import compare_compact, compare_zram
from cluster.compaction.replay.calls import compare_calls
from cluster.compaction.replay.contend import compare_contend
from cluster.compaction.replay.direct import compare_direct
from cluster.compaction.replay.lru import compare_lru
from cluster.compaction.replay.migration_record import load
from cluster.script.record import Difference, Json, RecordError


class MigrationComparison(NamedTuple):
    """How records of a kind are compared: what must be equal, and what is chance."""

    kind: str
    compare: Callable[[Json], Difference | None]
    compared: str
    chance: str

    def __str__(self) -> str:
        return f"{self.kind}: compared: {self.compared}. Chance: {self.chance}."


CALLS = MigrationComparison(
    "calls of a driver",
    compare_calls,
    "all calls in their order, with modes, answers, page flags and references; offers of a target; "
    "pgmigrate_success and pgmigrate_fail; answers of alloc_contig_range",
    "the rest of the memory, which is not recorded: places of targets, counters of scanned pages",
)
TWO_COMPACTORS = MigrationComparison(
    "two compactors",
    compare_calls,
    "calls of each page if a slow call decides who is first; that no page is isolated twice or left isolated",
    "in a race, which compactor takes which page",
)
BLOCKS = MigrationComparison(
    "blocks",
    compare_compact,
    "all moves in order, counters of migrations, of pages isolated and scanned (compact_migrate_scanned from "
    "6.12 on only), free blocks of order 9; if pages of the recorded system move, the moved pages and the "
    "free blocks",
    "pages that the recorded system takes after the run",
)
LRU = MigrationComparison(
    "large folios",
    compare_lru,
    "all moves in order with their orders, pgmigrate_success and pgmigrate_fail",
    "unevictable pages that moved after all, and free pages that the recorded system took: as recorded",
)
ZRAM = MigrationComparison(
    "zram",
    compare_zram,
    "places of all pages, counters, free blocks of order 9",
    "which page moved to which place",
)
CONTEND = MigrationComparison(
    "zram with a reader",
    compare_contend,
    "slots discarded and left intact, pages that zsmalloc refused to move",
    "the numbers of pages moved, as neither places nor times of reads are recorded",
)
DIRECT = MigrationComparison(
    "allocations that compact, and kcompactd",
    compare_direct,
    "the number of blocks obtained, within 15 % or 2, or that it does not end; of kcompactd all moves",
    "when kswapd runs, and with it the moves after that",
)


KILLED = MigrationComparison(
    "compaction that was killed",
    compare_direct,
    "that it does not end by itself, and what moved until then",
    "how many attempts were made until the signal came",
)


def compare(record: Json) -> Difference | None:
    """Do what the record's trigger did, from the recorded start; return the first difference, if any.

    Raises RecordError if the record lacks something that is needed, or has a wrong value.
    """
    try:
        return comparison_of(record).compare(record)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise RecordError(f"record {record['name']}: {type(error).__name__}: {error}") from error


def comparison_of(record: Json) -> MigrationComparison:
    """Return how this record is compared."""
    trigger = str(record.get("trigger", ""))
    if record["kind"] == "callbacks":
        return TWO_COMPACTORS if trigger.startswith("par") else CALLS
    if record["kind"] != "blocks":
        return ZRAM if record["kind"] == "zram" else CONTEND
    if "anon" in record:
        return LRU
    if trigger == "compact":
        return BLOCKS
    return KILLED if trigger.startswith("killed") else DIRECT


def compare_file(
    path: Path, kernel: str | None = None
) -> Iterator[tuple[str, MigrationComparison, Difference | None]]:
    """Yield name, comparison and first difference of each migration record in a file; nothing without any.

    kernel: whose rules hold, in place of those of the recorded one.

    Raises RecordError, or OSError if the file cannot be read.
    """
    for record in load(path):
        if kernel is not None and isinstance(record.get("guest"), dict):
            record["guest"]["kernel"] = kernel
        yield record["name"], comparison_of(record), compare(record)
