"""Writing for the user: on stdout, and the one line when something cannot be written."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer


def emit(text: str) -> None:
    """Write to stdout, all of it, or end the program with a line that says why not."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # Whoever reads has seen enough; typer ends quietly then.
    except OSError as error:
        # What is still in the buffer would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail(f"cannot write to standard output: {reason(error)}")


def fail(message: str) -> NoReturn:
    """End with exit code 1: not the user's mistake."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def reason(error: OSError) -> str:
    """What went wrong, without numbers and names of files."""
    if error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0]
