"""The moves between nodes: for summary.json, relocations.parquet and the report.

docs/reference/compaction.md describes every number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.compaction.internode.drain import Drained
from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.spec.content import PAGE_SIZE
from cluster.spec.topology import Distances
from ksmcluster.report import text
from ksmcluster.report.console import plain_table

if TYPE_CHECKING:
    import pyarrow as pa

#: The most nodes for which the report shows a matrix.
MATRIX_NODES = 8


def summary(done: RelocationResult) -> dict[str, Any]:
    """Return one element of the part `relocations` of summary.json."""
    after_pass = done.spec.after_pass
    return {
        "kind": done.spec.kind,
        "nodes": list(done.spec.nodes),
        **({"when": done.spec.when} if after_pass is None else {"after_pass": after_pass}),
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
    stayed = [{"owner": s.owner, "pages": s.pages, "why": s.why} for s in drained.stayed]
    if not drained.pageblocks:
        return {"node": node, "stayed": stayed}
    return {
        "node": node,
        "offline": drained.offline == drained.pageblocks,
        "pageblocks": drained.pageblocks,
        "pageblocks_offline": drained.offline,
        "stayed": stayed,
        "would_stay_movable_off": drained.fixed,
    }


def table(relocated: Iterable[RelocationResult], distance: Distances) -> pa.Table:
    """Return relocations.parquet: a row per pair of nodes with moves or attempts."""
    import pyarrow as pa

    rows = [row for number, done in enumerate(relocated) for row in _rows(number, done, distance)]
    return pa.Table.from_pylist(rows)


def _rows(number: int, done: RelocationResult, distance: Distances) -> Iterator[dict[str, int | str]]:
    for source, target in np.argwhere(done.attempts):
        pages = int(done.pages[source, target])
        yield {
            "relocation": number,
            "kind": done.spec.kind,
            "source": int(source),
            "target": int(target),
            "distance": int(distance[source, target]),
            "pages": pages,
            "bytes": PAGE_SIZE * pages,
            "attempts": int(done.attempts[source, target]),
        }


def report(relocated: Iterable[RelocationResult], distance: Distances) -> RenderableType:
    """Return a line per relocation and per page left behind, then the memory moved between nodes."""
    moved = np.zeros_like(distance)
    lines: list[RenderableType] = []
    for done in relocated:
        lines += [Text(f"  {line}") for line in _lines(done)]
        moved += done.pages * PAGE_SIZE
    if len(distance) <= MATRIX_NODES:
        return Group(*lines, Text(), _matrix(moved))
    return Group(*lines, Text(), _by_distance(moved, distance))


def _lines(done: RelocationResult) -> Iterator[str]:
    spec = done.spec
    what = {"drain": "drained", "even-out": "evened out", "nearer": "sent frames nearer"}[spec.kind]
    nodes = text.counted(len(spec.nodes), "node") if spec.nodes else "all nodes"
    when = f"{spec.when} compaction" if spec.after_pass is None else f"after pass {spec.after_pass}"
    moved = text.size(PAGE_SIZE * int(done.pages.sum()))
    # A node counts as drained only if nothing stayed on it.
    failed = any(drained.stayed for drained in done.drained.values())
    did = f"drain of {nodes}" if failed else f"{nodes} {what}"
    yield f"{did}, {when}: {moved} moved in {done.seconds * 1e3:.2f} ms"
    for node, drained in sorted(done.drained.items()):
        yield from _drained_lines(node, drained)


def _drained_lines(node: int, drained: Drained) -> Iterator[str]:
    if drained.pageblocks:
        offline = drained.offline == drained.pageblocks
        part = "offline" if offline else f"{drained.offline} of {drained.pageblocks} pageblocks offline"
        yield f"  node {node}: {part}; with unmovable driver pages, {drained.fixed:,} pages would stay"
    elif not drained.stayed:
        yield f"  node {node}: no frame stayed"
    for stayed in drained.stayed:
        yield f"  node {node}: {text.counted(stayed.pages, 'frame')} stayed: {stayed.owner}, {stayed.why}"


def _matrix(moved: NDArray[np.int64]) -> Table:
    """Return the matrix of moved memory in MiB."""
    table = plain_table("MiB from, to", *map(str, range(len(moved))))
    for node, row in enumerate(moved):
        table.add_row(f"  {node}", *(f"{count / 2**20:,.1f}" if count else "-" for count in row))
    return table


def _by_distance(moved: NDArray[np.int64], distance: Distances) -> Table:
    table = plain_table("distance", "pairs of nodes", "moved")
    for reach in np.unique(distance[moved > 0]).tolist():
        there = (distance == reach) & (moved > 0)
        table.add_row(f"  {reach}", f"{np.count_nonzero(there):,}", text.size(int(moved[there].sum())))
    return table
