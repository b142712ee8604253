"""Pictures of a sweep, from a table with a row per point and seed and a column per key and figure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from ksmcluster.experiments.figures import unit_of
from ksmcluster.experiments.sweeps.pareto import Objective
from ksmcluster.experiments.sweeps.pareto import front as pareto_front
from ksmcluster.experiments.sweeps.table import keys
from ksmcluster.report import text
from ksmcluster.report.plots.compaction import BlocksObtained, obtained_bars
from ksmcluster.report.plots.labels import place_labels
from ksmcluster.report.plots.picture import Picture, drawn
from ksmcluster.report.plots.style import BLUE, MOST_BARS, PALETTE, VERMILLION, count_axis, finish, line_style
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def pareto(
    table: pa.Table,
    objectives: Sequence[Objective],
    recommended: int | None = None,
    whole_front: Collection[int] | None = None,
) -> Picture:
    """Return the points of a sweep by two objectives; a line joins the Pareto front.

    Points are means over their seeds; thin lines show the range of the seeds. Points on the front are
    labelled with their numbers; the point with the number `recommended` is highlighted. `whole_front` has
    the points on the front of all objectives, if there are more; the legend says if it is another front.
    """
    if len(objectives) != 2:
        raise UserError("a Pareto front needs two objectives, as in saved_bytes:max,ksmd_cpu_seconds:min")
    points = _column(table, "point")
    columns = [_scaled(table, objective.name) for objective in objectives]
    numbers = np.unique(points)
    spread = np.array([_by_group(values, points, numbers) for values, _ in columns])
    # What failed has no figures.
    done = ~np.isnan(spread).any(axis=(0, 1))
    numbers, spread = numbers[done], spread[:, :, done]
    x, y = spread[:, 0]
    scores = {
        index: [objective.score(value) for objective, value in zip(objectives, point, strict=True)]
        for index, point in enumerate(zip(x.tolist(), y.tolist(), strict=True))
    }
    front = np.isin(np.arange(len(x)), pareto_front(scores))
    order = np.flatnonzero(front)[np.argsort(x[front], kind="stable")]
    is_whole = whole_front is None or set(whole_front) == set(numbers[order].tolist())
    front_label = "Pareto front" if is_whole else "Pareto front of these two"
    errors = [np.array([mean - low, high - mean]) for mean, low, high in spread]
    names = [
        f"{label},\n{'more' if objective.most else 'less'} is better"
        for objective, (_, label) in zip(objectives, columns, strict=True)
    ]

    def draw(axes: Sequence[Axes]) -> None:
        place = axes[0]
        if any(of.any() for of in errors):
            place.errorbar(
                x,
                y,
                errors[1],
                errors[0],
                fmt="none",
                ecolor="0.6",
                elinewidth=0.8,
                zorder=1,
                label="range of the seeds",
            )
        if not front.all():
            place.plot(x[~front], y[~front], "o", color="0.6", label="other points")
        place.plot(x[order], y[order], "s-", color=VERMILLION, label=front_label)
        if recommended in numbers:
            at = numbers == recommended
            place.plot(x[at], y[at], "o", ms=11, mfc="none", mec=BLUE, mew=1.5, label="recommended")
        place.margins(0.08, 0.15)
        _scale(place, "x", x)
        _scale(place, "y", y)
        finish(place, "Points of the sweep, by their numbers", *names)

    places = np.column_stack([x, y])
    labels = _labels(places[order], numbers[order])
    return drawn(draw, label=lambda axes: place_labels(axes[0], labels, places, places[order]))


def _labels(places: NDArray[np.float64], numbers: NDArray[Any]) -> dict[tuple[float, float], str]:
    """Return labels by place, made of point numbers; points with equal figures share a label."""
    found: dict[tuple[float, float], str] = {}
    for (x, y), number in zip(places.tolist(), numbers.tolist(), strict=True):
        found[x, y] = f"{found[x, y]}, {number}" if (x, y) in found else f"{number}"
    return found


def _scale(axes: Axes, name: Literal["x", "y"], values: NDArray[np.float64]) -> None:
    """Choose the ticks of an axis; values that differ widely get a logarithmic axis."""
    if not len(values) or not _is_wide(values):
        axes.locator_params(axis=name, nbins=6)
        return
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    near = values.max() / values.min() < 1000
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if near else (1.0,)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def sensitivity(table: pa.Table, key: str, figure: str) -> Picture:
    """Return a figure of the results over the values of one key, with the seeds as a band.

    There is a line for each combination of the other varied keys, or a single line if there are too many;
    combinations with equal results share one. Lines are means over the seeds; bands show the range of the
    seeds.
    """
    # What failed has no figures.
    table = table.filter(pc.is_valid(_arrow_column(table, figure)))
    values = _column(table, key)
    axis, ticks = _places(values)
    numbers, label = _scaled(table, figure)
    others = [name for name in keys(table) if name not in (key, "seed")]
    groups = _combinations(table, others)
    if together := len(groups) > len(PALETTE):
        groups = {"": np.arange(table.num_rows)}
    seeds = len(np.unique(_column(table, "seed")))
    means = ["all values of the other keys"] * together + [text.counted(seeds, "seed")] * (seeds > 1)
    lines: dict[bytes, tuple[list[str], NDArray[np.float64]]] = {}
    for name, rows in groups.items():
        at = np.unique(axis[rows])
        line = np.vstack([at, *_by_group(numbers[rows], axis[rows], at)])
        lines.setdefault(line.tobytes(), ([], line))[0].append(name)
    alike = "\nthe same with all values of the other keys" if len(lines) == 1 < len(groups) else ""
    spread = f"\nmean of {' and '.join(means)}; band: smallest to largest" if means else ""
    title = f"{figure} by {key}{alike}{spread}"

    def draw(axes: Sequence[Axes]) -> None:
        place = axes[0]
        for index, (names, (at, mean, low, high)) in enumerate(lines.values()):
            style, name = line_style(index), " and ".join(names)
            if ticks is not None:
                # Names have no order that a line could show.
                beside = at + 0.1 * (index - (len(lines) - 1) / 2)
                place.errorbar(beside, mean, (mean - low, high - mean), label=name, linestyle="none", **style)
                continue
            place.plot(at, mean, label=name, **style)
            place.fill_between(at, low, high, color=style["color"], alpha=0.2, lw=0)
        if ticks is not None:
            place.set_xticks(range(len(ticks)), ticks)
            place.set_xlim(-0.5, len(ticks) - 0.5)
        elif _is_wide(axis):
            place.set_xscale("log")
            place.set_xticks(np.unique(axis), [f"{value:,g}" for value in np.unique(axis)])
            place.minorticks_off()
        elif (axis == np.round(axis)).all():
            count_axis(place.xaxis)
        _scale(place, "y", numbers[~np.isnan(numbers)])
        finish(place, title, _label(key, _unit(table, key)), label)

    return drawn(draw)


def points(table: pa.Table, figures: Sequence[str]) -> Picture:
    """Return a bar for each point of a sweep, with figures side by side.

    Bars are means over the seeds; thin lines show the range of the seeds.
    """
    groups = _combinations(table, keys(table))
    if len(groups) > MOST_BARS:
        raise UserError(f"{len(groups)} points are too many for bars; use --kind pareto or sensitivity")
    labels = [name.replace(", ", "\n") or "the scenario" for name in groups]
    of_point = np.empty(table.num_rows)
    for index, rows in enumerate(groups.values()):
        of_point[rows] = index
    places = np.arange(len(groups))

    def draw(axes: Sequence[Axes]) -> None:
        for index, (place, figure) in enumerate(zip(axes, figures, strict=True)):
            values, label = _scaled(table, figure)
            mean, low, high = _by_group(values, of_point, places)
            colour = PALETTE[index % len(PALETTE)]
            bars = place.barh(places, mean, 0.6, color=colour, xerr=(mean - low, high - mean), ecolor="0.3")
            place.bar_label(bars, fmt="{:,.4g}", fontsize=8, padding=2)
            place.set_yticks(places, labels if index == 0 else [""] * len(labels))
            place.invert_yaxis()
            place.margins(x=0.15)
            finish(place, figure, label, "")
            place.grid(visible=False, axis="y")

    return drawn(draw, len(figures))


def obtained(points: Sequence[BlocksObtained], key: str) -> Picture:
    """Return the blocks obtained at each point of a sweep of `compact`, by the values of `key`."""
    if len(points) > MOST_BARS:
        raise UserError(
            f"{len(points)} points are too many for bars; use --kind sensitivity --figure obtained.movable_on"
        )

    def draw(axes: Sequence[Axes]) -> None:
        obtained_bars(axes[0], points)
        finish(axes[0], "Successful allocations before and after compaction", key, "blocks obtained")
        axes[0].grid(visible=False, axis="x")

    return drawn(draw)


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    column: NDArray[Any] = _arrow_column(table, name).to_numpy()
    return column


def _arrow_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise UserError(f'the sweep has no column "{name}"; choose one of {", ".join(table.column_names)}')
    return table[name]


def _scaled(table: pa.Table, name: str) -> tuple[NDArray[np.float64], str]:
    """Return a column of numbers in a suitable unit, and its label with the unit."""
    values, unit = _column(table, name).astype(float), _unit(table, name)
    if unit == "bytes":
        factor, unit = text.byte_unit(float(np.nanmax(np.abs(values))))
        values, name = values / factor, name.replace("_bytes", "")
    return values, _label(name.removesuffix("_seconds").removesuffix("_percent"), unit)


def _unit(table: pa.Table, name: str) -> str:
    """Return the unit of a column, from its metadata or its name."""
    metadata = table.schema.field(name).metadata or {}
    if b"unit" in metadata:
        return str(metadata[b"unit"].decode())
    return unit_of(name)


def _label(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _by_group(
    values: NDArray[np.float64], of: NDArray[Any], groups: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean, minimum and maximum of each group, without missing values."""
    rows = [values[(of == group) & ~np.isnan(values)] for group in groups]
    of_rows = [(r.mean(), r.min(), r.max()) if len(r) else (np.nan,) * 3 for r in rows]
    mean, low, high = np.array(of_rows).T
    # Rounding may put the mean of equal values beside them.
    return np.clip(mean, low, high), low, high


def _places(values: NDArray[Any]) -> tuple[NDArray[np.float64], list[str] | None]:
    """Return the positions of the values on the axis and, if they are not numbers, their names in order."""
    if np.issubdtype(values.dtype, np.number):
        return values.astype(float), None
    texts = values.astype(str).tolist()
    names = list(dict.fromkeys(texts))
    return np.array([names.index(text) for text in texts], float), names


def _is_wide(values: NDArray[np.float64]) -> bool:
    """Return whether values differ so widely that a logarithmic axis shows more."""
    return bool(values.min() > 0 and values.max() / values.min() >= 16)


def _combinations(table: pa.Table, names: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Return the rows of each combination of the values of these keys, by its name."""
    columns = [_column(table, name).tolist() for name in names]
    rows: dict[tuple[Any, ...], list[int]] = {}
    for row in range(table.num_rows):
        rows.setdefault(tuple(column[row] for column in columns), []).append(row)
    return {
        ", ".join(f"{key}={value}" for key, value in zip(names, values, strict=True)): np.array(found)
        for values, found in rows.items()
    }
