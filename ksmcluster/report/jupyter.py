"""Progress in a notebook cell: one line of output, updated in place."""

from __future__ import annotations

import html
import os
from typing import Any

from rich.console import Console


class JupyterBar:
    """A progress bar with a note."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown: Any = None

    def show(self, done: int, total: int | None, note: str) -> None:
        """Show the progress; without a total, the bar only moves."""
        from IPython.display import display

        of = f" of {total}" if total else ""
        line = f"{self._label} {done}{of}: {note}"
        extent = f' value="{done}" max="{total}"' if total else ""
        both = {"text/plain": line, "text/html": f"<progress{extent}></progress> {html.escape(line)}"}
        if self._shown is None:
            self._shown = display(both, raw=True, display_id=True)
        else:
            self._shown.update(both, raw=True)


def is_live(console: Console) -> bool:
    """Return whether lines can be redrawn: on a terminal, but not in a command that a notebook cell runs.

    The terminal that a notebook gives to its commands only supports colours.
    """
    return console.is_terminal and "JPY_PARENT_PID" not in os.environ
