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
        measures += _strong(scaling.weak[-1], scaling.alone)
        tables.append(("Strong scaling, the largest machine", _strong_table(scaling.weak[-1], scaling.alone)))
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


def _strong(together: Point, alone: Point) -> tuple[Measure, Measure]:
    """Return the speed-up of both passes and of the first one, per repetition."""
    nodes, per_node = text.counted(alone.nodes, "node"), alone.pages // alone.nodes
    name, processes = f"scaling, {nodes} of {per_node} pages", text.counted(together.processes, "process")
    return (
        Measure(f"{name}: {processes} against 1", "x", ratios(alone.seconds, together.seconds)),
        Measure(f"{name}, first pass: {processes} to 1", "x", ratios(alone.first, together.first)),
    )


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


def _strong_table(together: Point, alone: Point) -> Table:
    shown = plain_table("processes", "seconds", "times as fast", "from to", "first pass", "from to")
    both, first = _strong(together, alone)
    shown.add_row("  1", f"{median(alone.seconds):.3f}", "1", "", "1", "")
    ratios = [cell for m in (both, first) for cell in (figure(m.value), spread(m.values))]
    shown.add_row(f"  {together.processes}", f"{median(together.seconds):.3f}", *ratios)
    return shown
