"""A plot of pages per second against nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ksmcluster.report.plots.files import is_picture, write_picture
from ksmcluster.report.plots.style import BLUE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ksmcluster.bench.scaling import Scaling

#: Title in the picture's metadata; it marks files that `bench` may replace.
TITLE = "ksmcluster bench scaling"


def is_plot(path: Path) -> bool:
    """Whether `draw` wrote the file."""
    return is_picture(path, TITLE)


def draw(scaling: Scaling, path: Path) -> None:
    """Write the picture. Raises OSError if it cannot be written."""
    write_picture(figure_of(scaling), path, TITLE)


def figure_of(scaling: Scaling) -> Figure:
    """Return the picture as a matplotlib figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    nodes = [point.nodes for point in scaling.weak]
    rates = [point.rates() for point in scaling.weak]
    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.plot(nodes, [scaling.ideal(point) for point in scaling.weak], "--", color="0.5", label="ideal")
    axes.plot(nodes, [point.rate() for point in scaling.weak], "o-", color=BLUE, label="measured (median)")
    axes.fill_between(nodes, [min(r) for r in rates], [max(r) for r in rates], color=BLUE, alpha=0.2, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, labels=[str(n) for n in nodes], minor=False)
    # The default margin is a fraction of the data's range, which may be almost zero.
    axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel("NUMA nodes")
    axes.set_ylabel("pages/s, first and merging pass")
    axes.set_title(_title(scaling), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _title(scaling: Scaling) -> str:
    last = scaling.weak[-1]
    per_node = last.pages // last.nodes
    processes = max(point.processes for point in scaling.weak)
    where = "in one process" if processes == 1 else f"in up to {processes} processes on {scaling.cores} cores"
    # Two lines: in one it would be wider than the picture.
    return f"{per_node:,} pages per node, {where}\nideal: every core at its best speed"
