"""What a console would show, as text."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

WIDTH = 80


def printed(what: RenderableType, console: Console) -> str:
    """What the console would show of it, in 80 columns."""
    # Console.capture would touch the stream, which may be a full disk.
    stream, console.file = console.file, io.StringIO()
    console.width = WIDTH
    console.print(what)
    shown, console.file = console.file.getvalue(), stream
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())
