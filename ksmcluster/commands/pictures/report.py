"""`ksmcluster report`: write results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.output import Target, replacing

#: Marks pages that this command may replace.
MARK = b'<meta name="generator" content="ksmcluster report">'


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of simulate, compact or sweep.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="File to write.")],
) -> None:
    """Write one HTML page with the question, the result, and how to reproduce it.

    Several runs appear side by side. Each sweep has its own section.
    """
    from ksmcluster.report.html.page import report as page
    from ksmcluster.report.saved_runs import read_outputs
    from ksmcluster.system.errors import UserError

    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: give a name that ends in .html")
    target = Target("--output", output, lambda path: MARK in path.read_bytes()[:1024])
    target.check()
    text = page(*read_outputs(directories))
    with replacing(target) as path:
        path.write_text(text, "utf-8")
