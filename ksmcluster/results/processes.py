"""KSM statistics of each process and mapping: for summary.json, two tables and the report.

docs/reference/results.md describes every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from cluster.machine.census import COUNTED, HUGE_COLUMNS, Census
from cluster.spec.captured_pages import CapturedProcess
from cluster.spec.content import PAGE_SIZE
from cluster.spec.knobs import RMAP_ITEM_SIZE
from cluster.spec.statistics import OF_PROCESS
from ksmcluster.report import text
from ksmcluster.report.console import WIDTH, plain_table
from ksmcluster.results.columns import ColumnTable, with_units

if TYPE_CHECKING:
    import pyarrow as pa

#: The most rows of a table in the report, and the largest and smallest width of names.
MOST_ROWS, LABEL, LEAST_LABEL = 10, 25, 10
#: Columns of numbers in these tables, by heading.
COLUMNS = {
    "mapped": "pages_mapped",
    "merging": "ksm_merging_pages",
    "zero": "ksm_zero_pages",
    "unshared": "pages_unshared",
    "volatile": "pages_volatile",
}


class CensusTable(ColumnTable):
    """Columns that name a process or mapping (None without a name), and `statistics.OF_PROCESS`."""

    def to_arrow(self) -> pa.Table:
        """Return the table as a pyarrow table."""
        import pyarrow as pa

        types = {"kind": pa.string(), "name": pa.string(), "mapping": pa.string()}
        return with_units(
            pa.table({name: pa.array(column, types.get(name, pa.int64())) for name, column in self.items()})
        )


def processes(
    kinds: Sequence[str], captured: Sequence[Sequence[CapturedProcess]], census: Census
) -> CensusTable:
    """Return one row per process; `captured` has the captured processes of each kind, if any."""
    replayed = [
        of_kind[number % len(of_kind)] if (of_kind := captured[kind]) else None
        for kind, number in zip(census.kinds.tolist(), census.numbers.tolist(), strict=True)
    ]
    return CensusTable(
        kind=_texts([kinds[kind] for kind in census.kinds.tolist()]),
        index=census.numbers,
        node=census.nodes,
        name=_texts([process and process.name for process in replayed]),
        pid=_texts([process and process.pid for process in replayed]),
        **_counts(census.processes),
    )


def mappings(
    kinds: Sequence[str], captured: Sequence[Sequence[CapturedProcess]], census: Census
) -> CensusTable:
    """Return one row per name of mappings, for the processes of a kind or of a captured name."""
    names = census.mapping_names
    return CensusTable(
        kind=_texts([kinds[name.kind] for name in names]),
        name=_texts([name.captured if captured[name.kind] else None for name in names]),
        mapping=_texts([name.mapping for name in names]),
        **_counts(census.mappings),
    )


def _texts(values: Sequence[str | int | None]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _counts(counts: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return the columns of `statistics.OF_PROCESS`."""
    found = dict(zip((*COUNTED, *HUGE_COLUMNS), counts.T, strict=True))
    items, merging = found["ksm_rmap_items"], found["ksm_merging_pages"]
    found["pages_volatile"] = items - merging - found["pages_unshared"]
    # ksm_process_profit() of mm/ksm.c.
    found["ksm_process_profit"] = (merging + found["ksm_zero_pages"]) * PAGE_SIZE - items * RMAP_ITEM_SIZE
    return {statistic.name: found[statistic.name] for statistic in OF_PROCESS}


def frame_mappings(census: Census) -> list[dict[str, int]]:
    """Return `ksm_frame_mappings` of summary.json: KSM frames by the number of their mappings."""
    return [
        {"from": (1 << power >> 1) + 1 if power else 1, "to": 1 << power, "frames": frames}
        for power, frames in enumerate(census.ksm_frames.tolist())
    ]


# The report.


def report(
    processes: CensusTable, mappings: CensusTable, frames: Sequence[Mapping[str, int]], *, plain: bool
) -> dict[str, Table]:
    """Return the sections of the report that are not empty, by title."""
    sections = {}
    if len(mappings["mapping"]) > 1:
        sections["What merges, in pages"] = _top("mapping", mapping_labels(mappings), mappings)
    # Processes of one kind are similar, unless they were captured.
    if len(set(processes["kind"])) > 1 or (len(processes["name"]) > 1 and any(processes["name"])):
        top = _top("process", process_labels(processes), processes)
        sections["Processes that save most, in pages"] = top
    if frames:
        sections["KSM frames by the number of their mappings"] = _frames(frames, plain)
    return sections


def mapping_labels(table: CensusTable) -> list[str]:
    """Return the labels of mappings: only parts that differ, and file names without directories."""
    parts = [table[name] for name in ("kind", "name") if len(set(table[name])) > 1]
    names = [name.rpartition("/")[2] or "(anonymous)" for name in table["mapping"]]
    return [": ".join(filter(None, row)) for row in zip(*parts, names, strict=True)]


def process_labels(table: CensusTable) -> list[str]:
    rows = zip(table["kind"], table["index"], table["name"], strict=True)
    return [f"{kind}[{index}]" + (f" {name}" if name else "") for kind, index, name in rows]


def _top(head: str, labels: Sequence[str], table: CensusTable) -> Table:
    """Return the rows with the highest profit."""
    heads = *COLUMNS, "profit"
    rows = top_rows(labels, table)
    numbers = zip(heads, *(cells for _, *cells in rows), strict=True)
    room = WIDTH - 2 - sum(2 + max(map(len, column)) for column in numbers)
    width = max(LEAST_LABEL, min(LABEL, room))
    shown = plain_table(head, *heads)
    for label, *cells in rows:
        # Names may look like markup.
        shown.add_row(Text(f"  {text.shortened(label, width)}"), *cells)
    if table.num_rows > MOST_ROWS:
        shown.add_row(f"  {table.num_rows - MOST_ROWS:,} more")
    return shown


def top_rows(labels: Sequence[str], table: CensusTable) -> list[tuple[str, ...]]:
    """Return label, pages by COLUMNS, and profit of the rows with the highest profit."""
    profit = table["ksm_process_profit"]
    return [
        (
            text.one_line(labels[row]),
            *(f"{table[name][row]:,}" for name in COLUMNS.values()),
            text.size(int(profit[row])),
        )
        for row in np.argsort(-profit, kind="stable")[:MOST_ROWS].tolist()
    ]


def _frames(frames: Sequence[Mapping[str, int]], plain: bool) -> Table:
    table = plain_table("mappings", "frames", "")
    most = max(bucket["frames"] for bucket in frames)
    table.columns[-1].justify = "left"
    for bucket in frames:
        count = bucket["frames"]
        bar = Text(text.bar(count / most, 32, plain=plain), "green")
        table.add_row(f"  {span(bucket)}", f"{count:,}", bar)
    return table


def span(bucket: Mapping[str, int]) -> str:
    """Return the range of mappings of an element of `ksm_frame_mappings`."""
    low, high = bucket["from"], bucket["to"]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
