"""Results of the scaling benchmark: numbers and tables."""

from __future__ import annotations

from statistics import median

from rich.table import Table

from ksmcluster.bench.scaling import Point, Scaling, ratios
from ksmcluster.bench.tools.calibration import UNIT
from ksmcluster.bench.tools.measure import BenchOutcome, Measure, figure, spread
from ksmcluster.report import text
from ksmcluster.report.console import plain_table


def outcome(scaling: Scaling) -> BenchOutcome:
    """Return the numbers and the tables."""
    repeat = len(scaling.weak[-1].seconds)
    measures = [m for point in scaling.weak for m in _weak(scaling, point)]
    time = "CPU" if scaling.engine == "inline" else "wall"
    title = f"Weak scaling, engine {scaling.engine}: first and merging pass, {time} time; medians of {repeat}"
    tables = [(title, _weak_table(scaling)), ("Sent between nodes", _traffic(scaling))]
    if scaling.alone:
        strong = _strong(scaling, scaling.alone)
        measures += [m for row in strong.values() for m in row]
        tables.append(("Strong scaling, the largest machine", _strong_table(scaling.alone, strong)))
    return BenchOutcome(tuple(measures), tuple(tables))


def _weak(scaling: Scaling, point: Point) -> list[Measure]:
    """Return the calibrated rate, and the best time per page relative to this one, per repetition."""
    per_node = point.pages // point.nodes
    name = f"scaling, {scaling.engine}, {per_node} pages a node: {text.counted(point.nodes, 'node')}"
    calibrated_rates = tuple(r * loop for r, loop in zip(point.rates(), point.loops, strict=True))
    used = min(point.processes, scaling.cores)
    against = tuple(rate / used * scaling.best() * 1e-9 for rate in point.rates())
    mail = point.mail_per_page()
    found = [
        Measure(name, UNIT, calibrated_rates, f"{point.rate():,.0f} pages/s"),
        Measure(f"{name}, time a page against the best", "x", against),
    ]
    if not mail:
        return found
    extra = f"{mail:.1f} bytes for each page whose messages go to another process"
    return [*found, Measure(f"{name}, mail", "pages/KiB", (1024 / mail,), extra)]


def _strong(scaling: Scaling, alone: Point) -> dict[str, tuple[Measure, Measure]]:
    """Return the speed-up of both passes and of the first one, per repetition, by what is compared."""
    nodes, per_node = text.counted(alone.nodes, "node"), alone.pages // alone.nodes
    name = f"scaling, {nodes} of {per_node} pages"
    last, apart = scaling.weak[-1], scaling.apart
    pairs = {"against 1": (alone, last)}
    if apart:
        pairs["apart against 1"] = alone, apart
        pairs[f"against {last.processes} apart"] = apart, last
    found = {}
    for what, (slower, faster) in pairs.items():
        several = text.counted(last.processes, "process")
        first = f"{name}, first pass: {several} {what.replace('against', 'to')}"
        found[f"{last.processes} {what}"] = (
            Measure(f"{name}: {several} {what}", "x", ratios(slower.seconds, faster.seconds)),
            Measure(first, "x", ratios(slower.first, faster.first)),
        )
    return found


def _weak_table(scaling: Scaling) -> Table:
    shown = plain_table("nodes", "processes", "pages", "pages/s", "from to", "core ns/page", "to best")
    for point in scaling.weak:
        core_ns = point.core_ns(scaling.cores)
        shown.add_row(
            f"  {point.nodes}",
            str(point.processes),
            f"{point.pages:,}",
            _millions(point.rate()),
            f"{_millions(min(point.rates()))} to {_millions(max(point.rates()))}",
            f"{core_ns:,.0f}",
            f"{core_ns / scaling.best():.2f}",
        )
    return shown


def _millions(rate: float) -> str:
    return f"{rate / 1e6:.2f}M"


def _traffic(scaling: Scaling) -> Table:
    shown = plain_table("nodes", "first pass", "merging pass", "steady pass", "bytes/page", "as mail")
    for point in scaling.weak:
        sizes = [text.size(sent) for sent in point.bytes_sent]
        per_page = sum(point.bytes_sent) / point.pages, point.mail_per_page()
        shown.add_row(f"  {point.nodes}", *sizes, *(f"{count:.1f}" for count in per_page))
    return shown


def _strong_table(alone: Point, strong: dict[str, tuple[Measure, Measure]]) -> Table:
    shown = plain_table("processes", "times as fast", "from to", "first pass", "from to")
    shown.add_row(f"  1, {median(alone.seconds):.3f} s", "1", "", "1", "")
    for what, measures in strong.items():
        shown.add_row(f"  {what}", *(cell for m in measures for cell in (figure(m.value), spread(m.values))))
    return shown
