"""`ksmcluster plot`: a picture of results, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.output import Target, replacing
from ksmcluster.report.plots.files import check_picture, is_picture, write_picture

#: In the metadata of the picture, by which it is known again.
TITLE = "Picture by ksmcluster plot"


def plot(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of simulate or compact.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.svg|.png|.pdf", help="The picture to write.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="What to draw: memory, saved, counters, scan, time, nodes, remote, sharers; "
            "blocks, obtained (compaction).  [default: the first that the results have]"
        ),
    ] = None,
    statistic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the kind nodes: which column of passes.parquet."),
    ] = None,
) -> None:
    """Draw a picture of results; several are side by side with the same scales, or lines of one picture."""
    from ksmcluster.errors import UserError
    from ksmcluster.report.plots.kinds import kinds_of, picture
    from ksmcluster.report.saved_runs import read_runs

    target = Target("--output", output, lambda path: is_picture(path, TITLE))
    check_picture(output, "--output")
    target.check()
    runs = read_runs(directories)
    found = kinds_of(runs)
    if not kind and not found:
        raise UserError(
            "there is no picture of simulate and compact together; give outputs of one of the two"
        )
    figure = picture(kind or found[0], runs, statistic)
    with replacing(target) as path:
        write_picture(figure, path, TITLE)
