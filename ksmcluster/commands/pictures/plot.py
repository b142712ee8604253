"""`ksmcluster plot`: draw a figure of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksmcluster.commands.options import Limits, Objectives
from ksmcluster.commands.output import Target, replacing
from ksmcluster.report.plots.files import check_picture, is_picture, write_picture
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from ksmcluster.report.plots.picture import Picture

#: Title in the picture's metadata; it marks files that this command may replace.
TITLE = "Picture by ksmcluster plot"


def plot(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of simulate or compact, or one sweep.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.svg|.png|.pdf", help="File to write.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="What to draw: memory, saved, counters, scan, time, nodes, remote, sharers; "
            "blocks, obtained (compaction); pareto, points, sensitivity, obtained (sweep).  "
            "[default: the first that the results allow]"
        ),
    ] = None,
    statistic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For the kind nodes: a column of passes.parquet."),
    ] = None,
    objectives: Objectives = None,
    limits: Limits = None,
    key: Annotated[str | None, typer.Option(help="For the kind sensitivity: the key that varies.")] = None,
    figure: Annotated[
        str | None, typer.Option(help="For the kinds sensitivity and points: the figure to draw.")
    ] = None,
) -> None:
    """Draw a picture of results.

    Several results appear side by side with equal scales, or as lines of one plot.
    """
    from ksmcluster.report.saved_runs import is_sweep

    target = Target("--output", output, lambda path: is_picture(path, TITLE))
    check_picture(output, "--output")
    target.check()
    if any(is_sweep(directory) for directory in directories):
        drawn = _of_sweep(directories, kind, objectives, limits or (), key, figure)
    else:
        drawn = _of_runs(directories, kind, statistic)
    with replacing(target) as path:
        write_picture(drawn, path, TITLE)


def _of_runs(directories: Sequence[Path], kind: str | None, statistic: str | None) -> Picture:
    from ksmcluster.report.plots.kinds import kinds_of, picture
    from ksmcluster.report.saved_runs import read_runs

    runs = read_runs(directories)
    found = kinds_of(runs)
    if not kind and not found:
        raise UserError("simulate and compact share no kind of picture; give outputs of only one of them")
    return picture(kind or found[0], runs, statistic)


def _of_sweep(
    directories: Sequence[Path],
    kind: str | None,
    objectives: str | None,
    limits: Sequence[str],
    key: str | None,
    figure: str | None,
) -> Picture:
    from ksmcluster.experiments.sweeps.sweep_result import load_sweep

    if len(directories) > 1:
        raise UserError("only one sweep can be drawn at a time; give one directory")
    found = load_sweep(directories[0])
    return found.plot(kind, objectives=objectives, limits=limits, key=key, figure=figure)
