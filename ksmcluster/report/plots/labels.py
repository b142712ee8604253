"""Places labels beside points so that they cover no other labels, points or lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

#: Directions from a point to its label, preferred ones first, and distances in typographic points.
_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (4, 8, 13, 20)
_HORIZONTAL = {1: "left", 0: "center", -1: "right"}
_VERTICAL = {1: "bottom", 0: "center", -1: "top"}
#: Radius of a marker in pixels.
_MARKER = 4.0
#: Number of places checked on each segment of the line.
_SAMPLES = 24
#: Penalties for covering something.
_LABEL, _OUTSIDE, _POINT, _LINE = 10.0, 10.0, 4.0, 3.0


def place_labels(
    axes: Axes,
    labels: Mapping[tuple[float, float], str],
    points: NDArray[np.float64],
    line: NDArray[np.float64],
) -> None:
    """Put each label beside its point, one after another, where it covers least.

    `points` and `line` are float64[n, 2], in data units of the axes. Call it when everything else is drawn.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    markers, corners = (axes.transData.transform(places) for places in (points, line))
    drawn = _along(corners)
    boxes: list[Bbox] = []
    for at, label in labels.items():
        boxes.append(_place(axes, at, label, markers, drawn, boxes))


def _place(
    axes: Axes,
    at: tuple[float, float],
    label: str,
    markers: NDArray[np.float64],
    line: NDArray[np.float64],
    others: list[Bbox],
) -> Bbox:
    """Draw one label; return its box in pixels."""
    best = min(
        _offsets(), key=lambda offset: _cost(axes, _box(axes, at, label, offset), markers, line, others)
    )
    return _box(axes, at, label, best, keep=True)


def _offsets() -> Iterator[tuple[int, int, int]]:
    """Yield directions with distances, near ones first, as `min` takes the first of equals."""
    for distance in _DISTANCES:
        for x, y in _DIRECTIONS:
            yield x, y, distance


def _box(
    axes: Axes, at: tuple[float, float], label: str, offset: tuple[int, int, int], *, keep: bool = False
) -> Bbox:
    """Return the box of a label at this offset; with `keep`, the label stays drawn."""
    x, y, distance = offset
    text = axes.annotate(
        label,
        at,
        (x * distance, y * distance),
        textcoords="offset points",
        ha=_HORIZONTAL[x],
        va=_VERTICAL[y],
    )
    box = text.get_window_extent()
    if not keep:
        text.remove()
    return box


def _cost(
    axes: Axes, box: Bbox, markers: NDArray[np.float64], line: NDArray[np.float64], others: list[Bbox]
) -> float:
    frame = axes.get_window_extent()
    outside = not (frame.containsx(box.x0) and frame.containsx(box.x1) and frame.containsy(box.y1))
    return (
        _LABEL * sum(box.overlaps(other) for other in others)
        + _OUTSIDE * (outside or not frame.containsy(box.y0))
        + _POINT * _inside(box.padded(_MARKER), markers)
        + _LINE * (_inside(box.padded(1.0), line) > 0)
    )


def _inside(box: Bbox, places: NDArray[np.float64]) -> int:
    """Return how many places are in a box."""
    return int(((places >= box.min) & (places <= box.max)).all(axis=1).sum())


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places along a line: float64[n, 2]."""
    parts = np.linspace(corners[:-1], corners[1:], _SAMPLES)
    return parts.reshape(-1, 2)
