"""Console output as text, and tables of numbers."""

from __future__ import annotations

import io
import sys
from typing import IO, cast

from rich.console import Console, RenderableType
from rich.table import Table

from ksmcluster.system.streams import Muted

WIDTH = 80


def error_console() -> Console:
    """Return a console on stderr that ignores write errors."""
    return Console(file=cast(IO[str], Muted(sys.stderr)))


def printed(what: RenderableType, console: Console) -> str:
    """Return the text that the console would show, in 80 columns."""
    # Console.capture would write to the stream, which may be on a full disk.
    stream, console.file = console.file, io.StringIO()
    console.width = WIDTH
    console.is_jupyter = False  # in Jupyter mode it would show a cell's output and write nothing
    console.print(what)
    shown, console.file = console.file.getvalue(), stream
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


def as_text(what: RenderableType) -> str:
    """Return a renderable as text without colours, independent of the terminal."""
    return printed(what, Console(file=io.StringIO(), width=WIDTH, color_system=None)).rstrip()


def plain_table(*heads: str) -> Table:
    """Return a table whose columns, except the first one, hold numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"  {heads[0]}", overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table
