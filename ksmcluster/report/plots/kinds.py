"""The kinds of pictures of runs: what each shows, which runs have it, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ksmcluster.config.problems import did_you_mean
from ksmcluster.report.plots.files import require_matplotlib
from ksmcluster.report.run_data import RunData
from ksmcluster.results.directory import NODE_PAIRS
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ksmcluster.report.plots.picture import Picture

SIMULATION = "ksmcluster.report.plots.simulation"
COMPACTION = "ksmcluster.report.plots.compaction"


def _no_simulation(run: RunData) -> str:
    return "" if run.command == "simulate" else "it is an output of compact; use an output of simulate"


def _no_other_nodes(run: RunData) -> str:
    if why_not := _no_simulation(run):
        return why_not
    if run.summary["nodes"] == 1:
        return "it has only one node"
    return "" if run.tables[NODE_PAIRS].num_rows else "at its end, no KSM frame is mapped"


def _no_sharers(run: RunData) -> str:
    return _no_simulation(run) or ("" if run.summary["ksm_frame_mappings"] else "it has no KSM frames")


def _no_compaction(run: RunData) -> str:
    has = run.command == "compact" or "migration" in run.summary
    return "" if has else "nothing was compacted; use an output of compact, or a scenario with [migration]"


class PictureKind(NamedTuple):
    """A kind of picture of a run, or of several."""

    module: str
    function: str
    help: str
    #: Returns why a run has no such picture; empty if it has one.
    why_not: Callable[[RunData], str]
    #: Whether several runs share the axes; otherwise each has its own, with the same scales.
    together: bool = False

    def draw(self, axes: Axes, runs: Sequence[RunData], statistic: str | None) -> None:
        """Draw on these axes; gets several runs only if the kind draws them together."""
        function = getattr(import_module(self.module), self.function)
        function(axes, runs, *([statistic] if statistic else []))


KINDS = {
    "memory": PictureKind(SIMULATION, "memory", "memory in use over simulated time", _no_simulation),
    "saved": PictureKind(
        SIMULATION, "saved", "memory saved over simulated time", _no_simulation, together=True
    ),
    "counters": PictureKind(SIMULATION, "counters", "pages by state after each pass", _no_simulation),
    "scan": PictureKind(
        SIMULATION, "scan", "pages scanned, skipped, merged and copied in each pass", _no_simulation
    ),
    "time": PictureKind(SIMULATION, "seconds_of_passes", "how long each pass takes", _no_simulation),
    "nodes": PictureKind(SIMULATION, "nodes", "a statistic by node and pass", _no_simulation),
    "remote": PictureKind(
        SIMULATION,
        "remote",
        "mappings of KSM frames, by node of the process and of the frame",
        _no_other_nodes,
    ),
    "sharers": PictureKind(SIMULATION, "sharers", "KSM frames by the number of their mappings", _no_sharers),
    "blocks": PictureKind(
        COMPACTION, "blocks", "free blocks by order before and after compaction", _no_compaction
    ),
    "obtained": PictureKind(
        COMPACTION, "obtained", "allocations that succeed before and after it", _no_compaction, together=True
    ),
}


def kinds_of(runs: Sequence[RunData]) -> list[str]:
    """Return the kinds of pictures that all runs have."""
    return [name for name, kind in KINDS.items() if not any(kind.why_not(run) for run in runs)]


def picture(name: str, runs: Sequence[RunData], statistic: str | None = None) -> Picture:
    """Return one picture; runs that do not share axes are drawn side by side.

    Raises UserError if there is no such kind, or a run does not have it.
    """
    kind = _checked(name, runs, statistic)
    from ksmcluster.report.plots.picture import drawn, same_scales

    groups = _groups(kind, runs)

    def draw(axes: Sequence[Axes]) -> None:
        for place, group in zip(axes, groups, strict=True):
            _draw(kind, place, group, len(groups) > 1, statistic)
        same_scales(axes)

    return drawn(draw, len(groups))


def pictures(name: str, runs: Sequence[RunData], *, named: bool = False) -> list[Picture]:
    """Return what `picture` draws as one picture per axes; with `named`, titles have the name of the run."""
    kind = _checked(name, runs, None)
    from ksmcluster.report.plots.picture import drawn, same_scales

    groups = _groups(kind, runs)
    made = [drawn(partial(_draw_alone, kind, group, named)) for group in groups]
    same_scales([one.axes[0] for one in made])
    return made


def _draw_alone(kind: PictureKind, group: Sequence[RunData], named: bool, axes: Sequence[Axes]) -> None:
    _draw(kind, axes[0], group, named, None)


def _groups(kind: PictureKind, runs: Sequence[RunData]) -> list[Sequence[RunData]]:
    """Return the runs that share axes."""
    return [runs] if kind.together else [[run] for run in runs]


def _draw(
    kind: PictureKind, axes: Axes, group: Sequence[RunData], named: bool, statistic: str | None
) -> None:
    """Draw a group of runs; with `named`, the name of the run is above the title."""
    kind.draw(axes, group, statistic)
    if named and not (kind.together and len(group) > 1):
        axes.set_title(f"{group[0].label}\n{axes.get_title(loc='left')}")


def _checked(name: str, runs: Sequence[RunData], statistic: str | None) -> PictureKind:
    if name not in KINDS:
        hint = did_you_mean(name, KINDS) or f"; choose one of {', '.join(KINDS)}"
        raise UserError(f'unknown kind of picture "{name}"{hint}')
    if statistic and name != "nodes":
        raise UserError(f'only the kind "nodes" takes a statistic, not "{name}"')
    for run in runs:
        if why_not := KINDS[name].why_not(run):
            raise UserError(f'{run.label} has no picture "{name}": {why_not}')
    require_matplotlib(f'picture "{name}"')
    return KINDS[name]
