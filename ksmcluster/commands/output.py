"""Writing for the user: on stdout, and the one line when something cannot be written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to be written, which takes this name when it is complete; or the program ends with a line."""
    special = path.exists() and not path.is_file()  # a device, say
    written = path if special else path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield written
        if not special:
            written.replace(path)
    except OSError as error:
        fail(f"cannot write {path}: {reason(error)}")
    finally:
        if not special:
            written.unlink(missing_ok=True)


def fail(message: str) -> NoReturn:
    """End with exit code 1: not the user's mistake."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def reason(error: OSError) -> str:
    """What went wrong, without numbers and names of files."""
    if error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0]
