"""Console output as text, and tables of numbers."""

from __future__ import annotations

import io
import sys
from typing import IO, cast

from rich.console import Console, Group, RenderableType
from rich.table import Table

from ksmcluster.system.streams import Muted

WIDTH = 80
#: Of a table in a file, which no terminal breaks.
_MOST_WIDTH = 400


def error_console() -> Console:
    """Return a console on stderr that ignores write errors."""
    return Console(file=cast(IO[str], Muted(sys.stderr)))


def printed(what: RenderableType, console: Console) -> str:
    """Return the text that the console would show, in 80 columns.

    A wider table takes the columns that it needs, as far as the terminal has them.
    """
    room = console.width if console.is_terminal else _MOST_WIDTH
    # Console.capture would write to the stream, which may be on a full disk.
    stream, console.file = console.file, io.StringIO()
    console.width = _MOST_WIDTH
    needed = [console.measure(part).maximum for part in _tables(what)]
    console.width = max(WIDTH, min(room, max(needed, default=0)))
    console.is_jupyter = False  # in Jupyter mode it would show a cell's output and write nothing
    console.print(what)
    shown, console.file = console.file.getvalue(), stream
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


def _tables(what: RenderableType) -> list[Table]:
    """Return the tables; those without a head lay out text, which may wrap."""
    parts = what.renderables if isinstance(what, Group) else [what]
    return [part for part in parts if isinstance(part, Table) and part.show_header]


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
