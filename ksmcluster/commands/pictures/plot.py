"""`ksmcluster plot`: a picture of results, as a file."""

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

#: In the metadata of the picture, by which it is known again.
TITLE = "Picture by ksmcluster plot"


def plot(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of simulate or compact, or one of sweep.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.svg|.png|.pdf", help="The picture to write.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="What to draw: memory, saved, counters, scan, time, nodes, remote, sharers; "
            "blocks, obtained (compaction); pareto, points, sensitivity, obtained (sweep).  "
            "[default: the first there is]"
        ),
    ] = None,
    statistic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the kind nodes: which column of passes.parquet."),
    ] = None,
    objectives: Objectives = None,
    limits: Limits = None,
    key: Annotated[str | None, typer.Option(help="Of the kind sensitivity: the key that varies.")] = None,
    figure: Annotated[
        str | None, typer.Option(help="Of the kinds sensitivity and points: what is drawn.")
    ] = None,
) -> None:
    """Draw a picture of results; several are side by side with the same scales, or lines of one picture."""
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
        raise UserError(
            "there is no picture of simulate and compact together; give outputs of one of the two"
        )
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
        raise UserError("a sweep is drawn alone; give one directory")
    found = load_sweep(directories[0])
    return found.plot(kind, objectives=objectives, limits=limits, key=key, figure=figure)
