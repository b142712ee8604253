"""`ksmcluster report`: results as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.output import Target, replacing

#: By which the page is known again.
MARK = b'<meta name="generator" content="ksmcluster report">'


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of simulate, compact or sweep.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")],
) -> None:
    """Write one HTML page that says what was asked, what came of it, and how to get it again.

    Several runs are side by side; each sweep has a section of its own.
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
