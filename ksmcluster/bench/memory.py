"""Resident memory of simulations of several sizes: bytes per page, and an estimate for larger ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from actors.run_options import RunOptions
from cluster.spec.content import PAGE_SIZE
from ksmcluster.bench.scaling import PAGES_MULTIPLE
from ksmcluster.bench.tools.footprint import Footprint
from ksmcluster.bench.tools.measure import BenchOutcome, Measure
from ksmcluster.bench.tools.programs import own_ray, run_program
from ksmcluster.report import text
from ksmcluster.report.console import plain_table
from ksmcluster.report.progress import Tell
from ksmcluster.system.errors import UserError
from ksmcluster.system.host_memory import available

_LARGE = {"1 TiB": (1 << 40) // PAGE_SIZE, "16 TiB": (16 << 40) // PAGE_SIZE}
_MIB = 1 << 20
_UNIT = "pages/MiB"


@dataclass(frozen=True, slots=True)
class Line:
    """bytes = base + slope * pages, fitted by least squares."""

    base: float
    slope: float

    @classmethod
    def fitted(cls, pages: Sequence[int], sizes: Sequence[int]) -> Line:
        """Fit a line through at least two points."""
        slope, base = np.polyfit(np.array(pages, float), np.array(sizes, float), 1)
        return cls(float(base), float(slope))

    def at(self, pages: int) -> float:
        """Return the bytes for a number of pages."""
        return self.base + self.slope * pages


def bench_memory(
    nodes: int,
    pages_per_node: Sequence[int],
    options: RunOptions,
    tell: Tell,
) -> BenchOutcome:
    """Measure each size in its own process, in ascending order; skip sizes that would not fit into memory.

    Raises UserError if a simulation fails, or if fewer than two sizes are left.
    """
    if wrong := [pages for pages in pages_per_node if pages < PAGES_MULTIPLE or pages % PAGES_MULTIPLE]:
        raise UserError(f"--pages-per-node {wrong[0]}: give multiples of {PAGES_MULTIPLE}")
    found: list[Footprint] = []
    left_out: dict[int, float] = {}
    for pages in sorted(set(pages_per_node)):
        expected = _expected(found, nodes * pages)
        if expected > available():
            left_out[nodes * pages] = expected
            continue
        tell(f"{text.counted(nodes, 'node')} of {pages:,} pages")
        arguments = (str(nodes), str(pages), options.engine, str(options.nodes_per_actor))
        ran = run_program("ksmcluster.bench.tools.footprint", *arguments, environment=own_ray())
        found.append(Footprint(**json.loads(ran)))
    if len(found) < 2:
        raise UserError("--pages-per-node: give at least two sizes that fit into memory")
    if min(line.slope for line in lines(found)) <= 0:
        raise UserError("--pages-per-node: too small to measure the bytes per page; give larger sizes")
    where = f"{text.counted(nodes, 'node')}, engine {options.engine}"
    tables = [(f"Resident memory, {where}", _table(found)), ("Fitted", _fitted(found))]
    if left_out:
        tables.append(("Not run: too little memory", _left_out(left_out)))
    return BenchOutcome(tuple(_measures(nodes, options.engine, found)), tuple(tables))


def lines(found: Sequence[Footprint]) -> tuple[Line, Line]:
    """Fit the peaks, and the memory held at the end."""
    pages = [f.pages for f in found]
    return Line.fitted(pages, [f.peak for f in found]), Line.fitted(pages, [f.steady for f in found])


def _expected(found: Sequence[Footprint], pages: int) -> float:
    """Return the peak expected from the sizes so far; 0 before there are two."""
    return lines(found)[0].at(pages) if len(found) > 1 else 0.0


def _measures(nodes: int, engine: str, found: Sequence[Footprint]) -> list[Measure]:
    """Return pages per MiB (larger is better) of each size, and of the fitted line."""
    name = f"memory, {engine}, {text.counted(nodes, 'node')}"
    measures = []
    for f in found:
        took = f"{text.seconds(f.pass_seconds)} after a start of {text.seconds(f.start_seconds)}"
        for what, size in (("peak", f.peak), ("steady", f.steady)):
            extra = f"{text.size(size)}, {size / f.pages:.0f} bytes per page; {took}"
            each = f"{name} of {f.pages // nodes} pages: {what}"
            measures.append(Measure(each, _UNIT, (f.pages * _MIB / size,), extra))
    for what, line in zip(("peak", "steady"), lines(found), strict=True):
        extra = f"{line.slope:.0f} bytes per page, plus {text.size(line.base)}"
        measures.append(Measure(f"{name}: {what}, fitted", _UNIT, (_MIB / line.slope,), extra))
    return measures


def _table(found: Sequence[Footprint]) -> Table:
    shown = plain_table("pages", "peak", "steady", "peak/page", "steady/page", "start", "passes")
    for f in found:
        shown.add_row(
            f"  {f.pages:,}",
            text.size(f.peak),
            text.size(f.steady),
            f"{f.peak / f.pages:.0f}",
            f"{f.steady / f.pages:.0f}",
            text.seconds(f.start_seconds),
            text.seconds(f.pass_seconds),
        )
    return shown


def _left_out(expected: dict[int, float]) -> Table:
    shown = plain_table("pages", "expected peak")
    for pages, size in expected.items():
        shown.add_row(f"  {pages:,}", text.size(size))
    return shown


def _fitted(found: Sequence[Footprint]) -> Table:
    shown = plain_table("", "bytes/page", "plus", *_LARGE)
    for name, line in zip(("peak", "steady"), lines(found), strict=True):
        sizes = [text.size(line.at(pages)) for pages in _LARGE.values()]
        shown.add_row(f"  {name}", f"{line.slope:.1f}", text.size(line.base), *sizes)
    return shown
