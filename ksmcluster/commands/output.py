"""Output for the user: on stdout and to files, with one line if something cannot be written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import typer

from ksmcluster.report import text
from ksmcluster.system.errors import RunFailedError, UserError
from ksmcluster.system.replacing import check_file, sibling, why_not_writable

if TYPE_CHECKING:
    from ksmcluster.results.compaction.compaction_result import CompactionResult
    from ksmcluster.results.result import Result


def emit(shown: str) -> None:
    """Write text to stdout, or end the program with a line that says why this failed."""
    try:
        sys.stdout.write(shown)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # The reader has closed the pipe; typer then exits quietly.
    except OSError as error:
        # Python would flush the buffer at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail(f"cannot write to standard output: {reason(error)}")


class Target(NamedTuple):
    """A file that an option names and that the command writes."""

    option: str
    path: Path
    #: Returns whether the existing file is one that this command wrote, and may replace.
    is_ours: Callable[[Path], bool]

    def check(self) -> None:
        """Raise UserError if it cannot be written; call it before the work."""
        path = self.allowed()
        if not self.is_device() and (wrong := why_not_writable(path.parent, path.name)):
            raise UserError(f"{self.option} {self.path}: {wrong}")

    def allowed(self) -> Path:
        """Return the path to write to. Raises UserError if what is there may not be replaced."""
        if self.is_device():
            return self.path
        return check_file(self.path, f"{self.option} {self.path}", self.is_ours)

    def is_device(self) -> bool:
        """Whether it is a device or a pipe, which is written to and not replaced."""
        try:
            mode = self.path.stat().st_mode
        except OSError:
            return False
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def replacing(target: Target) -> Iterator[Path]:
    """Yield a temporary file that takes the target's name when it is complete; end with a line on failure."""
    try:
        path = target.allowed()
        if target.is_device():
            yield path
            return
        with sibling(path) as beside:
            written = beside / path.name
            yield written
            target.allowed()
            written.replace(path)
    except OSError as error:
        fail(f"cannot write {target.path}: {reason(error)}")


def save(result: Result | CompactionResult, directory: Path) -> None:
    """Write the files of a result, or end the program with a line that says why this failed."""
    try:
        result.save(directory)
    except OSError as error:
        fail(f"cannot write the results to {directory}: {reason(error)}")


def show(result: Result | CompactionResult, output: Path | None, *, as_json: bool) -> None:
    """Write the files of a result if `output` is given, and print its summary or its report."""
    if output is not None:
        save(result, output)
    emit(result.summary_json() if as_json else _report(result))


def _report(result: Result | CompactionResult) -> str:
    from rich.console import Console

    from ksmcluster.results.result import Result

    if isinstance(result, Result):
        from ksmcluster.report.simulation_report import rendered

        return rendered(result, Console())
    from ksmcluster.report.console import printed
    from ksmcluster.results.compaction.compaction_result import report

    return printed(report(result), Console())


@contextmanager
def partly_shown(output: Path | None, *, as_json: bool) -> Iterator[None]:
    """If the run in the block fails, show the passes that it finished."""
    try:
        yield
    except RunFailedError as error:
        if error.result is not None:
            show(error.result, output, as_json=as_json)
        raise


def fail(message: str) -> NoReturn:
    """Print an error and exit with 1: the failure is not the user's mistake."""
    with suppress(OSError, ValueError):  # stderr may be closed or full
        typer.echo(text.message(f"error: {message}"), err=True)
    raise typer.Exit(1)


def reason(error: OSError) -> str:
    """Return what went wrong, without error numbers and file names."""
    if error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0]
