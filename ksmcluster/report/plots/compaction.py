"""Pictures of compaction: free blocks before and after, and blocks obtained by allocations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from cluster.spec.content import PAGE_SIZE
from ksmcluster.report import text
from ksmcluster.report.compaction_words import state_words
from ksmcluster.report.plots.style import BLUE, GREEN, ORANGE, count_axis, finish, name_ticks
from ksmcluster.report.run_data import RunData

#: Colour of each state of memory, and hatching for print without colours.
STATES = {"before": (ORANGE, ""), "movable_off": (GREEN, "\\\\"), "movable_on": (BLUE, "//")}


class CompactionStates(NamedTuple):
    """One compaction of all nodes."""

    title: str
    free_blocks: Mapping[str, Sequence[int]]
    obtained: Mapping[str, int]
    order: int
    requested: int


class BlocksObtained(NamedTuple):
    """Blocks obtained by allocations, by state of memory (without drivers two), and the number requested."""

    label: str
    obtained: Mapping[str, float]
    requested: int


def compaction_of(summary: Mapping[str, Any]) -> CompactionStates:
    """Return the compaction of `compact`, or that of the pass of `simulate` in which most pages moved."""
    if (migration := summary.get("migration")) is None:
        order, requested = summary["order"], summary["requested"]
        return CompactionStates("compaction", summary["free_blocks"], summary["obtained"], order, requested)
    by_pass = migration["by_pass"]
    busiest = int(np.argmax(by_pass["pages_moved"]))
    free, got = (
        {state: by_pass[name][state][busiest] for state in STATES} for name in ("free_blocks", "obtained")
    )
    title = f"compaction after pass {busiest + 1} of {summary['passes']}"
    return CompactionStates(title, free, got, migration["order"], migration["requested"])


def blocks(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw free memory by block order, before and after compaction."""
    (run,) = runs
    done = compaction_of(run.summary)
    sizes = np.array([PAGE_SIZE << order for order in range(len(done.free_blocks["before"]))])
    words = state_words(done.free_blocks)
    memory = {state: np.array(done.free_blocks[state]) * sizes for state in words}
    factor, unit = text.byte_unit(float(max(of_state.max() for of_state in memory.values())))
    places = np.arange(len(sizes))
    for index, (state, label) in enumerate(words.items()):
        colour, hatch = STATES[state]
        place = places + (index - (len(words) - 1) / 2) * 0.28
        axes.bar(
            place, memory[state] / factor, 0.28, color=colour, hatch=hatch, label=label, ec="white", lw=0
        )
    axes.set_xticks(places, [f"{order}" for order in places])
    title = f"Free blocks by order: {done.title}"
    finish(axes, title, "order (blocks of 4 KiB \u00d7 2^order)", f"memory in free blocks ({unit})")
    axes.grid(visible=False, axis="x")


def obtained(axes: Axes, runs: Sequence[RunData]) -> None:
    """Draw the blocks of the scenario's order that allocations got: a group of bars per run."""
    done = [compaction_of(run.summary) for run in runs]
    obtained_bars(
        axes,
        [BlocksObtained(run.label, d.obtained, d.requested) for run, d in zip(runs, done, strict=True)],
    )
    sizes = sorted({text.size(PAGE_SIZE << of_run.order) for of_run in done})
    of_all = done[0].title if len({of_run.title for of_run in done}) == 1 else "compaction"
    title = f"Allocations that succeed: {of_all}"
    finish(axes, title, "run", f"blocks of {' or '.join(sizes)} obtained")
    axes.grid(visible=False, axis="x")


def obtained_bars(axes: Axes, groups: Sequence[BlocksObtained]) -> None:
    """Draw a group of bars per compaction, with a bar for each state of memory."""
    places = np.arange(len(groups))
    words = state_words({state for group in groups for state in group.obtained})
    for index, (state, label) in enumerate(words.items()):
        colour, hatch = STATES[state]
        having = [number for number, group in enumerate(groups) if state in group.obtained]
        bars = axes.bar(
            places[having] + (index - (len(words) - 1) / 2) * 0.28,
            [groups[number].obtained[state] for number in having],
            0.26,
            color=colour,
            hatch=hatch,
            label=label,
            ec="white",
            lw=0,
        )
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8 if len(groups) < 5 else 6, padding=2)
    axes.hlines(
        [group.requested for group in groups],
        places - 0.45,
        places + 0.45,
        colors="0.3",
        linestyles="--",
        lw=1,
        label="requested",
    )
    name_ticks(axes, [group.label for group in groups])
    count_axis(axes.yaxis)
    axes.margins(y=0.12)
