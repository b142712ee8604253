"""A figure that shows itself in a notebook, and is written in our style."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksmcluster.report.plots.style import HEIGHT, RC, WIDTH

#: Characters in a line of the legend below one axes, and those that a handle with its gaps takes.
LEGEND_WIDTH, HANDLE = 72, 8


class Picture(Figure):
    """A matplotlib figure without pyplot: nothing to close, and none shown twice."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Write the figure, as matplotlib does."""
        with mpl.rc_context(RC):
            super().savefig(*arguments, **options)

    def svg(self, *, letters: Literal["path", "none"] = "path") -> str:
        """Return it as the text of an SVG file; with letters as paths, or as text in fonts of the reader.

        No font that is likely to be there is wider than the one with which the picture was laid out.
        """
        file = io.StringIO()
        with mpl.rc_context({"svg.fonttype": letters}):
            self.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    def _repr_svg_(self) -> str:
        # Not wider than the cell.
        return self.svg().replace("<svg ", '<svg style="max-width: 100%; height: auto" ', 1)


Draw = Callable[[Sequence[Axes]], None]


def drawn(draw: Draw, columns: int = 1, label: Draw = lambda _axes: None) -> Picture:
    """Return a picture of several axes side by side, which `draw` draws. One legend, below, serves all.

    `label` is called when all else is in its place.
    """
    with mpl.rc_context(RC):
        picture = Picture(figsize=(WIDTH * columns, HEIGHT), layout="constrained")
        axes = list(picture.subplots(1, columns, squeeze=False)[0])
        draw(axes)
        named = {
            label: artist
            for place in axes
            for artist, label in zip(*place.get_legend_handles_labels(), strict=True)
        }
        if len(named) > 1:
            ncols = max(1, int(columns * LEGEND_WIDTH // (max(map(len, named)) + HANDLE)))
            picture.legend(named.values(), named.keys(), loc="outside lower center", ncols=ncols)
        label(axes)
    return picture


def same_scales(axes: Sequence[Axes]) -> None:
    """Let runs be compared: give their axes the same limits, and their heat maps the same colours."""
    images = [image for place in axes for image in place.images]
    if images:
        limits = [image.get_clim() for image in images]
        for image in images:
            image.set_clim(min(low or 0 for low, _ in limits), max(high or 0 for _, high in limits))
        return
    x, y = ([get(place) for place in axes] for get in (Axes.get_xlim, Axes.get_ylim))
    for place in axes:
        place.set_xlim(min(low for low, _ in x), max(high for _, high in x))
        place.set_ylim(min(low for low, _ in y), max(high for _, high in y))
