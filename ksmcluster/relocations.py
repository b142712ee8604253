"""What a compaction scenario moved between nodes: for summary.json, relocations.parquet and the report.

docs/compaction.md describes every number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.migration.machine import NodeReport
from cluster.migration.relocated import Relocated, relocated
from cluster.migration.relocation import Drained
from cluster.migration.spec import CompactionSpec
from cluster.spec import PAGE_SIZE
from ksmcluster import text

#: Most nodes for which the report has a matrix.
MATRIX_NODES = 8


def summary(spec: CompactionSpec, reports: Sequence[NodeReport]) -> list[dict[str, Any]]:
    """The part `relocations` of summary.json, one for each."""
    return [_summary(done) for done in relocated(spec, reports)]


def _summary(done: Relocated) -> dict[str, Any]:
    return {
        "kind": done.spec.kind,
        "nodes": list(done.spec.nodes),
        "when": done.spec.when,
        "pages": int(done.pages.sum()),
        "bytes": PAGE_SIZE * int(done.pages.sum()),
        "moved": [
            {"from": int(source), "to": int(target), "bytes": PAGE_SIZE * int(done.pages[source, target])}
            for source, target in np.argwhere(done.pages)
        ],
        "simulated_seconds": done.seconds,
        "drained": [_drained(node, drained) for node, drained in sorted(done.drained.items())],
    }


def _drained(node: int, drained: Drained) -> dict[str, Any]:
    return {
        "node": node,
        "offline": drained.offline == drained.pageblocks,
        "pageblocks": drained.pageblocks,
        "pageblocks_offline": drained.offline,
        "stayed": [{"owner": s.owner, "pages": s.pages, "why": s.why} for s in drained.stayed],
        "would_stay_movable_off": drained.fixed,
    }


def rows(spec: CompactionSpec, reports: Sequence[NodeReport]) -> list[dict[str, int | str]]:
    """Rows of relocations.parquet: one for each pair of nodes that had to do with each other."""
    return [row for number, done in enumerate(relocated(spec, reports)) for row in _rows(spec, number, done)]


def _rows(spec: CompactionSpec, number: int, done: Relocated) -> Iterator[dict[str, int | str]]:
    for source, target in np.argwhere(done.attempts):
        pages = int(done.pages[source, target])
        yield {
            "relocation": number,
            "kind": done.spec.kind,
            "source": int(source),
            "target": int(target),
            "distance": 0 if spec.distance is None else int(spec.distance[source, target]),
            "pages": pages,
            "bytes": PAGE_SIZE * pages,
            "attempts": int(done.attempts[source, target]),
        }


def report(spec: CompactionSpec, reports: Sequence[NodeReport]) -> RenderableType:
    """A line for each relocation and what stayed, then who sent how much to whom."""
    moved = np.zeros((spec.nodes, spec.nodes), np.int64)
    lines: list[RenderableType] = []
    for done in relocated(spec, reports):
        lines += [Text(f"  {line}") for line in _lines(done)]
        moved += done.pages * PAGE_SIZE
    return Group(*lines, Text(), _matrix(moved) if spec.nodes <= MATRIX_NODES else _by_distance(spec, moved))


def _lines(done: Relocated) -> Iterator[str]:
    what = {"drain": "drained", "even-out": "evened out"}[done.spec.kind]
    nodes = text.counted(len(done.spec.nodes), "node") if done.spec.nodes else "all nodes"
    moved = text.size(PAGE_SIZE * int(done.pages.sum()))
    yield f"{nodes} {what}, {done.spec.when} compaction: {moved} moved in {done.seconds * 1e3:.2f} ms"
    for node, drained in sorted(done.drained.items()):
        offline = drained.offline == drained.pageblocks
        part = "offline" if offline else f"{drained.offline} of {drained.pageblocks} pageblocks offline"
        yield f"  node {node}: {part}; with movable off, {drained.fixed:,} pages would stay"
        for stayed in drained.stayed:
            yield f"    stayed: {stayed.owner}, {text.counted(stayed.pages, 'page')}: {stayed.why}"


def _grid(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"  {heads[0]}", no_wrap=True)
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _matrix(moved: NDArray[np.int64]) -> Table:
    """In MiB."""
    table = _grid("MiB from, to", *map(str, range(len(moved))))
    for node, row in enumerate(moved):
        table.add_row(f"  {node}", *(f"{count / 2**20:,.1f}" if count else "-" for count in row))
    return table


def _by_distance(spec: CompactionSpec, moved: NDArray[np.int64]) -> Table:
    table = _grid("distance", "pairs of nodes", "moved")
    distance = np.zeros_like(moved) if spec.distance is None else spec.distance
    for reach in np.unique(distance[moved > 0]).tolist():
        there = (distance == reach) & (moved > 0)
        table.add_row(f"  {reach}", f"{np.count_nonzero(there):,}", text.size(int(moved[there].sum())))
    return table
