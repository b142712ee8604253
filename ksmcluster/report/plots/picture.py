"""A matplotlib figure that displays itself in a notebook and uses our style."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksmcluster.report.plots.style import HEIGHT, RC, WIDTH

#: Characters per line of the legend below one axes, and the width of a handle with its gaps.
LEGEND_WIDTH, HANDLE = 72, 8


class Picture(Figure):
    """A matplotlib figure without pyplot: it needs no closing and is not shown twice."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Write the figure, as matplotlib does."""
        with mpl.rc_context(RC):
            super().savefig(*arguments, **options)

    def svg(self, *, letters: Literal["path", "none"] = "path") -> str:
        """Return the text of an SVG file, with letters as paths or as text in the reader's fonts.

        Common fonts are not wider than the font with which the picture was laid out.
        """
        file = io.StringIO()
        with mpl.rc_context({"svg.fonttype": letters}):
            self.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    def _repr_html_(self) -> str:
        # Pages exported from notebooks limit the width of an image in HTML, but not that of an SVG.
        title = html.escape(self.axes[0].get_title(loc="left").replace("\n", ": "))
        data = b64encode(self.svg().encode()).decode()
        return f'<img style="max-width: 100%" alt="{title}" src="data:image/svg+xml;base64,{data}">'

    def _repr_svg_(self) -> str:
        # Not wider than the cell.
        return self.svg().replace("<svg ", '<svg style="max-width: 100%; height: auto" ', 1)


Draw = Callable[[Sequence[Axes]], None]


def drawn(draw: Draw, columns: int = 1, label: Draw = lambda _axes: None) -> Picture:
    """Return a picture of several axes side by side, drawn by `draw`, with a common legend below.

    `label` is called when everything else is in place.
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
    """Give axes the same limits and heat maps the same colours, so that runs can be compared."""
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
