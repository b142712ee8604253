"""`ksmcluster capture`: take a snapshot of real memory."""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.spec.content import PAGE_SIZE
from cluster.spec.limits import MOST_SECONDS
from ksmcluster.capture.core import CoreSource
from ksmcluster.capture.hashing import key_warnings, load_key
from ksmcluster.capture.image import ImageSource
from ksmcluster.capture.process import ProcessGoneError, ProcessSource
from ksmcluster.capture.select import ALL_ENDED, Wanted, running_command
from ksmcluster.capture.session import Options, Session, Summary
from ksmcluster.capture.source import Source
from ksmcluster.capture.tracing.tracker import TrackWrites, tracker_of
from ksmcluster.report import text
from ksmcluster.report.console import error_console
from ksmcluster.snapshot import MAX_MOMENTS
from ksmcluster.system.errors import UserError


def capture(
    output: Annotated[Path, typer.Option("--output", "-o", help="Snapshot file to write (Parquet).")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="After --: a command to start and capture, with its children.", show_default=False
        ),
    ] = None,
    pid: Annotated[list[int] | None, typer.Option(help="Process to capture; may be repeated.")] = None,
    pid_tree: Annotated[
        list[int] | None,
        typer.Option(help="Process to capture together with its descendants; may be repeated."),
    ] = None,
    cgroup: Annotated[
        list[str] | None, typer.Option(help="Control group whose processes are captured; may be repeated.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Capture processes whose command name matches, such as 'qemu*'; may be repeated."),
    ] = None,
    ksm_users: Annotated[
        bool, typer.Option("--ksm-users", help="Capture every process with memory that ksmd scans.")
    ] = False,
    core: Annotated[list[Path] | None, typer.Option(help="ELF core file; may be repeated.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Raw memory image; may be repeated.")] = None,
    after: Annotated[float, typer.Option(help="Seconds to wait before the first moment.")] = 0.0,
    interval: Annotated[float | None, typer.Option(help="Seconds between moments.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of moments to capture.")] = None,
    track_writes: Annotated[
        TrackWrites,
        typer.Option(help="How to detect pages written between moments, even with the same bytes."),
    ] = TrackWrites.AUTO,
    key_file: Annotated[
        Path | None,
        typer.Option(help="Key that makes snapshots comparable; created if absent. Default: a random key."),
    ] = None,
    unkeyed: Annotated[
        bool, typer.Option("--unkeyed", help="Use no key: anybody can compare the digests.")
    ] = False,
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Leave out PIDs, names, paths and the host's topology.")
    ] = False,
    all_pages: Annotated[
        bool,
        typer.Option("--all-pages", help="Also capture file, shared and other pages that KSM does not scan."),
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the processes while they are read.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no summary.")] = False,
    json_summary: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.")] = False,
) -> None:
    """Capture the memory of processes, core files and raw images as a snapshot of page digests."""
    with _one_line_errors(output), ExitStack() as stack:
        files = [*(core or []), *(image or [])]
        wanted = Wanted(
            tuple(pid or ()), tuple(pid_tree or ()), tuple(cgroup or ()), tuple(name or ()), ksm_users
        )
        _check(wanted, command or [], files, output, stop)
        moments = _moments(interval, count, bool(files))
        if not 0 <= after <= MOST_SECONDS:
            raise UserError(f"--after must be a number of seconds from 0 to {MOST_SECONDS:g}")
        if key_file is not None and unkeyed:
            raise UserError("--key-file and --unkeyed exclude each other: give only one")
        started = stack.enter_context(running_command(command)) if command else None
        if started is not None:
            wanted = replace(wanted, trees=(*wanted.trees, started.pid))
        time.sleep(after)
        live = list(_open_live(stack, wanted))
        if not (live or files):
            raise UserError(ALL_ENDED)
        sources = _open_sources(stack, live, core or [], image or [])
        tracker = tracker_of(track_writes, live) if moments > 1 else None
        if tracker is not None:
            stack.callback(tracker.close)
        key, key_info = load_key(key_file, unkeyed)
        for warning in key_warnings(key_file) if key_file else ():
            typer.echo(f"warning: {warning}", err=True)
        options = Options(output, key, key_info, all_pages, stop, interval or 0.0, moments, minimal)
        progress = stack.enter_context(_progress(quiet))
        expected = moments * sum(source.expected_pages(all_pages) for source in sources)
        task = progress.add_task("capturing", total=expected)
        session = Session(sources, options, lambda pages: progress.advance(task, pages), tracker, wanted)
        summary = session.run()
        progress.stop()
        if json_summary:
            typer.echo(json.dumps(asdict(summary)))
        elif not quiet:
            _print_summary(summary, output)
        if started is not None:
            started.wait()


def _check(wanted: Wanted, command: list[str], files: list[Path], output: Path, stop: bool) -> None:
    live = wanted.anything or bool(command)
    if not live and not files:
        raise UserError("nothing to capture: give --pid, --pid-tree, --core, --image, or a command after --")
    if len(set(wanted.single)) < len(wanted.single):
        raise UserError("a process was given twice: give each --pid once")
    if stop and not live:
        raise UserError("--stop needs a process: give --pid or leave out --stop")
    if stop and os.getpid() in wanted.single:
        raise UserError("ksmcluster cannot stop itself: leave out --stop or its own PID")
    if any(file.exists() and output.exists() and file.samefile(output) for file in files):
        raise UserError(f"{output} is both input and output: choose another --output")


def _moments(interval: float | None, count: int | None, files: bool) -> int:
    """Return the number of moments that the options ask for."""
    if interval is None and count is None:
        return 1
    if interval is None or count is None:
        raise UserError("--interval and --count belong together: give both")
    if files:
        raise UserError("--interval is for live processes: leave out --core and --image")
    if not (0 <= interval <= MOST_SECONDS and 1 <= count <= MAX_MOMENTS):
        raise UserError(f"--interval must be from 0 to {MOST_SECONDS:g}, and --count from 1 to {MAX_MOMENTS}")
    return count


def _open_live(stack: ExitStack, wanted: Wanted) -> Iterator[ProcessSource]:
    """Open live processes. Skip those that have ended meanwhile, unless they were given by PID."""
    for pid in wanted.pids():
        try:
            yield stack.enter_context(closing(ProcessSource(pid)))
        except ProcessGoneError:
            if pid in wanted.single:
                raise


def _open_sources(
    stack: ExitStack, live: list[ProcessSource], cores: list[Path], images: list[Path]
) -> list[Source]:
    sources: list[Source] = list(live)
    for source in chain[Source](map(CoreSource, cores), map(ImageSource, images)):
        stack.callback(source.close)
        sources.append(source)
    return sources


@contextmanager
def _one_line_errors(output: Path) -> Iterator[None]:
    """Print errors in one line on stderr; exit with 2 for the user's mistakes, 1 for the system's."""
    try:
        yield
    except UserError as error:
        typer.echo(text.message(f"error: {error}"), err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = f"{output} cannot be written" if full else error.filename
        where = f"{name}: " if name else ""
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        typer.echo(text.message(f"error: {where}{reason}"), err=True)
        raise typer.Exit(1) from error


def _progress(quiet: bool) -> Progress:
    console = error_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )


def _print_summary(summary: Summary, output: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("seconds", "pages", "zero", "distinct", "duplicate", "KSM saves at best"):
        table.add_column(heading, justify="right")
    for moment in summary.moments:
        saved = moment.saved_pages * PAGE_SIZE
        counts = (moment.pages, moment.zero_pages, moment.distinct_contents, moment.duplicate_pages)
        table.add_row(f"{moment.seconds:.1f}", *(f"{count:,}" for count in counts), _size(saved))
    console = Console()
    console.print(table)
    several = f"{len(summary.moments):,} moments of up to " if len(summary.moments) > 1 else ""
    facts = [
        f"{summary.processes} {'process' if summary.processes == 1 else 'processes'}",
        f"{several}{_size(summary.memory_bytes)} of memory in {summary.seconds:.1f} s",
        f"{_size(summary.file_bytes)} in {text.one_line(str(output))}",
    ]
    if summary.vanished_pages:
        facts.append(f"{summary.vanished_pages:,} pages vanished meanwhile")
    if summary.ended:
        facts.append(f"ended meanwhile: {', '.join(map(str, summary.ended))}")
    for note in summary.notes:
        console.print(f"note: {note.text}", highlight=False, markup=False, soft_wrap=True)
    console.print(", ".join(facts), highlight=False, markup=False, soft_wrap=True)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
