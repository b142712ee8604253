"""A plot of pages per second and of efficiency against nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ksmcluster.report.plots.files import is_picture, write_picture
from ksmcluster.report.plots.style import BLUE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ksmcluster.bench.scaling import Point, Scaling

#: Title in the picture's metadata; it marks files that `bench` may replace.
TITLE = "ksmcluster bench scaling"


def is_plot(path: Path) -> bool:
    """Whether `draw` wrote the file."""
    return is_picture(path, TITLE)


def draw(scaling: Scaling, path: Path) -> None:
    """Write the picture. Raises OSError if it cannot be written."""
    write_picture(figure_of(scaling), path, TITLE)


def figure_of(scaling: Scaling) -> Figure:
    """Return the picture as a matplotlib figure: pages per second above, the efficiency below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.5), layout="constrained", dpi=150)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_rates(above, scaling)
    _draw_efficiency(below, scaling)
    nodes = [point.nodes for point in scaling.weak]
    below.set_xscale("log", base=2)
    below.set_xticks(nodes, labels=[str(n) for n in nodes], minor=False)
    below.set_xlabel("NUMA nodes")
    above.set_title(_title(scaling), fontsize="medium")
    for axes in above, below:
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    return figure


def _draw_rates(axes: Axes, scaling: Scaling) -> None:
    from matplotlib.ticker import EngFormatter

    points = scaling.weak
    nodes = [point.nodes for point in points]
    axes.plot(nodes, [scaling.ideal(point) for point in points], "--", color="0.5", label="ideal")
    _draw_measured(axes, nodes, [point.rates() for point in points], "measured (median)")
    # The default margin is a fraction of the data's range, which may be almost zero.
    axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_ylabel("pages/s, first and merging pass")


def _draw_efficiency(axes: Axes, scaling: Scaling) -> None:
    """Draw the parts of the ideal rate that are reached, and of the ideal speed-up by several processes."""
    from matplotlib.ticker import PercentFormatter

    points = scaling.weak
    reached = [[rate / scaling.ideal(point) for rate in point.rates()] for point in points]
    _draw_measured(axes, [point.nodes for point in points], reached, "measured / ideal")
    if scaling.alone:
        _draw_speedup(axes, scaling, scaling.alone)
    axes.set_ylim(0, max(1.1, 1.08 * axes.dataLim.y1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("efficiency")


def _draw_speedup(axes: Axes, scaling: Scaling, alone: Point) -> None:
    """Draw the speed-up by several processes for each core that they use, and what the host gives."""
    from ksmcluster.bench.scaling import ratios

    last, apart = scaling.weak[-1], scaling.apart
    used = min(last.processes, scaling.cores)
    speedups = [s / used for s in ratios(alone.seconds, last.seconds)]
    low, middle, high = min(speedups), median(speedups), max(speedups)
    label = f"speed-up by {last.processes} processes / {used}"
    spread = [[middle - low], [high - middle]]
    axes.errorbar([last.nodes], [middle], spread, fmt="s", color=VERMILLION, capsize=3, label=label)
    if apart:
        limit = median(ratios(alone.seconds, apart.seconds)) / used
        axes.plot(
            [last.nodes], [limit], "_k", markersize=14, markeredgewidth=2, label="speed-up without messages"
        )


def _draw_measured(axes: Axes, nodes: list[int], values: Sequence[Sequence[float]], label: str) -> None:
    """Draw the medians of repetitions, and a band from the least to the greatest."""
    axes.plot(nodes, [median(of_point) for of_point in values], "o-", color=BLUE, label=label)
    lowest, highest = ([edge(of_point) for of_point in values] for edge in (min, max))
    axes.fill_between(nodes, lowest, highest, color=BLUE, alpha=0.2, lw=0)


def _title(scaling: Scaling) -> str:
    last = scaling.weak[-1]
    per_node = last.pages // last.nodes
    processes = max(point.processes for point in scaling.weak)
    where = "in one process" if processes == 1 else f"in up to {processes} processes on {scaling.cores} cores"
    # Two lines: in one it would be wider than the picture.
    return f"{per_node:,} pages per node, {where}\nideal: every core at its best speed"
