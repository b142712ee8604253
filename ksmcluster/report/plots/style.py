"""The style of pictures: colour-blind safe colours, thin lines, sizes for print."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.typing import RcKeyType

#: The palette of Okabe and Ito (2008), without yellow, which is too light on paper.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
#: Markers distinguish lines in print without colours.
MARKERS = "osD^vPX"
#: Colour map of heat maps: its lightness is monotonic, so it also works in grey.
COLOUR_MAP = "cividis"
#: Format of whole numbers on an axis.
THOUSANDS = "{x:,.0f}"
#: The most groups of bars in a picture of a sweep.
MOST_BARS = 10
#: How many letters of labels fit below an inch of a picture.
_LETTERS_PER_INCH = 8
#: Size of one picture in inches: a column of a page.
WIDTH, HEIGHT = 4.8, 3.2

RC: dict[RcKeyType, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "image.cmap": COLOUR_MAP,
    "savefig.dpi": 200,
    # The same picture gives the same bytes.
    "svg.hashsalt": "ksmcluster",
}


def line_style(index: int) -> dict[str, Any]:
    """Return the colour and marker of the line with this index. Lines of one colour have other markers."""
    marker = MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]
    return {"color": PALETTE[index % len(PALETTE)], "marker": marker}


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title and axis labels, and draw the grid."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True)


def name_ticks(axes: Axes, labels: Sequence[str]) -> None:
    """Write a label below each of the places 0, 1, ...; on one line, and slanting, if they would touch."""
    lengths = [max(map(len, label.split("\n"))) for label in labels]
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None and place is not None
    width = figure.get_figwidth() / place.get_gridspec().ncols
    room = width * _LETTERS_PER_INCH / len(labels)
    places = range(len(labels))
    if max(((a + b) / 2 for a, b in pairwise(lengths)), default=0) < room:
        axes.set_xticks(places, labels)
        return
    slanting = [", ".join(label.split("\n")) for label in labels]
    axes.set_xticks(places, slanting, rotation=30, ha="right", rotation_mode="anchor")


def count_axis(axis: Axis) -> None:
    """Use only whole numbers as ticks, with thousands separators."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins="auto", steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.set_major_formatter(THOUSANDS)
