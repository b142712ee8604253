"""Pages a second against nodes, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ksmcluster.bench.scaling import Scaling

FORMATS = (".png", ".svg")
#: In the metadata of the picture, by which it is known again.
TITLE = "ksmcluster bench scaling"


def check_plot(path: Path) -> None:
    """Raises UserError if no picture can be drawn there: to be asked before measuring."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--plot {path}: give a name that ends in {' or '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--plot: needs matplotlib: pip install 'ksmcluster[plot]'") from error


def draw(scaling: Scaling, path: Path) -> None:
    """Write the picture; raises OSError if it cannot be written."""
    figure_of(scaling).savefig(path, metadata={"Title": TITLE})


def is_plot(path: Path) -> bool:
    """Whether `draw` wrote the file."""
    with path.open("rb") as file:
        return TITLE.encode() in file.read(4096)


def figure_of(scaling: Scaling) -> Figure:
    """The picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    nodes = [point.nodes for point in scaling.weak]
    rates = [point.rates() for point in scaling.weak]
    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.plot(nodes, [scaling.ideal(point) for point in scaling.weak], "--", color="0.5", label="ideal")
    axes.plot(nodes, [point.rate() for point in scaling.weak], "o-", color="C0", label="measured (median)")
    axes.fill_between(nodes, [min(r) for r in rates], [max(r) for r in rates], color="C0", alpha=0.2, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, labels=[str(n) for n in nodes], minor=False)
    # The margin by default is a part of what the data span, which may be next to nothing.
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
    return f"{per_node:,} pages a node, {where}\nideal: each core as fast as at its best"
