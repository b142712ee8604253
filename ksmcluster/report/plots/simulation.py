"""Pictures of a simulation of ksmd: memory saved over time and by node, and how often frames are shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import Locator, MaxNLocator
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from cluster.spec.statistics import UNITS
from ksmcluster.report import text
from ksmcluster.report.plots.style import (
    BLUE,
    GREEN,
    ORANGE,
    THOUSANDS,
    count_axis,
    finish,
    line_style,
    name_ticks,
)
from ksmcluster.report.run_data import RunData
from ksmcluster.results.directory import NODE_PAIRS
from ksmcluster.results.node_pairs import matrix
from ksmcluster.system.errors import UserError

STATE = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages")
WORK = ("pages_scanned", "pages_skipped", "pages_merged", "cow_ksm")
TIME = "simulated time (s)"
#: Hatching of the second of two bars, for print without colours.
HATCHED: dict[str, Any] = {"hatch": "//", "ec": "white", "lw": 0}


def memory(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw memory in use over simulated time, with KSM and without."""
    (run,) = runs
    seconds = _seconds(run)
    saved = np.array(run.summary["by_pass"]["saved_bytes"])
    # Values of the whole machine are sums over the nodes.
    used = run.by_node("frames_used").sum(axis=1) * PAGE_SIZE
    factor, unit = text.byte_unit(float((used + saved).max()))
    without, used_scaled = (used + saved) / factor, used / factor
    axes.plot(seconds, without, label="without KSM", linestyle="--", **line_style(1))
    axes.plot(seconds, used_scaled, label="with KSM", **line_style(0))
    axes.fill_between(seconds, used_scaled, without, color=GREEN, alpha=0.2, lw=0, label="saved")
    axes.set_ylim(0, 1.08 * max(without.max(), used_scaled.max()))
    axes.set_xlim(left=0)
    finish(axes, "Memory in use at the end of each pass", TIME, f"memory ({unit})")


def saved(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw memory saved over simulated time: a line per run."""
    counts = [np.array(run.summary["by_pass"]["saved_bytes"]) for run in runs]
    factor, unit = text.byte_unit(float(max(abs(count).max() for count in counts)))
    for index, (run, count) in enumerate(zip(runs, counts, strict=True)):
        axes.plot(_seconds(run), count / factor, label=run.label, **line_style(index))
    low = min(float(count.min()) for count in counts)
    if low >= 0:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    finish(axes, "Memory saved at the end of each pass", TIME, f"memory saved ({unit})")


def counters(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw the kernel's page counters at the end of each pass."""
    _lines(axes, runs, STATE, "Pages by state at the end of each pass")


def scan(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw the pages scanned, skipped, merged and copied during each pass."""
    _lines(axes, runs, WORK, "Pages handled during each pass")


def _lines(axes: Axes, runs: Sequence[RunData], names: Sequence[str], title: str) -> None:
    (run,) = runs
    passes = np.arange(run.summary["passes"]) + 1
    for index, name in enumerate(names):
        axes.plot(passes, run.by_node(name).sum(axis=1), label=name, **line_style(index))
    count_axis(axes.xaxis)
    count_axis(axes.yaxis)
    axes.set_ylim(bottom=0)
    finish(axes, title, "pass", "pages, all nodes")


def nodes(axes: Axes, runs: Sequence[RunData], statistic: str = "ksm_merging_pages") -> None:
    """Draw one statistic by node and pass."""
    if statistic not in UNITS:
        raise UserError(f'unknown statistic "{statistic}"; choose one of {", ".join(UNITS)}')
    (run,) = runs
    _heat_map(axes, run.by_node(statistic), 1, UNITS[statistic])
    finish(axes, f"{statistic} by node and pass", "pass", "node")
    axes.grid(visible=False)


def remote(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw the mappings of KSM frames by the process's node and the frame's, at the end of the run."""
    (run,) = runs
    values = matrix(run.tables[NODE_PAIRS].to_pydict(), run.summary["nodes"])
    # A few nodes often have most of the KSM frames.
    scale = LogNorm(1, max(int(values.max()), 10))
    _heat_map(axes, np.ma.masked_equal(values, 0), 0, "page table entries", scale)
    elsewhere = text.percent(1 - float(np.trace(values) / values.sum()))
    title = f"Mappings of KSM frames at the end: {elsewhere} on other nodes"
    finish(axes, title, "node of the process", "node of the KSM frame")
    axes.grid(visible=False)


def _heat_map(
    axes: Axes, values: NDArray[np.int64], first: int, unit: str, scale: LogNorm | None = None
) -> None:
    """Draw `values` as a heat map, int64[columns, rows]; columns count from `first`, rows from 0."""
    columns, rows = values.shape
    extent = (first - 0.5, columns + first - 0.5, -0.5, rows - 0.5)
    image = axes.imshow(values.T, aspect="auto", origin="lower", interpolation="nearest", extent=extent)
    if scale is None:
        image.set_clim(values.min(), max(values.max(), values.min() + 1))
        ticks: Locator | None = MaxNLocator(integer=True)
    else:
        image.set_norm(scale)
        ticks = None
    axes.figure.colorbar(image, ax=axes, label=unit, format=THOUSANDS, ticks=ticks)
    count_axis(axes.xaxis)
    count_axis(axes.yaxis)


def sharers(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw KSM frames by the number of their mappings, at the end of the run."""
    (run,) = runs
    ranges = run.summary["ksm_frame_mappings"]
    spans = [f"{r['from']}" if r["from"] == r["to"] else f"{r['from']}\u2013{r['to']}" for r in ranges]
    axes.bar(range(len(ranges)), [r["frames"] for r in ranges], color=BLUE, width=0.8)
    name_ticks(axes, spans)
    count_axis(axes.yaxis)
    finish(axes, "KSM frames by the number of their mappings", "mappings of a frame", "KSM frames")
    axes.grid(visible=False, axis="x")


def seconds_of_passes(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw the duration of each pass, and ksmd's CPU time in it."""
    (run,) = runs
    by_pass = run.summary["by_pass"]
    passes = np.arange(run.summary["passes"]) + 1
    axes.bar(passes - 0.2, by_pass["scan_seconds"], 0.4, color=BLUE, label="from start to end")
    axes.bar(
        passes + 0.2, by_pass["ksmd_cpu_seconds"], 0.4, color=ORANGE, label="CPU time of ksmd", **HATCHED
    )
    count_axis(axes.xaxis)
    finish(axes, "Time of each pass", "pass", TIME)
    axes.grid(visible=False, axis="x")


def _seconds(run: RunData) -> list[float]:
    seconds: list[float] = run.summary["by_pass"]["simulated_seconds"]
    return seconds
