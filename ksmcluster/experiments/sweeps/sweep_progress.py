"""The progress of a sweep: a bar on a terminal, a line per run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ksmcluster.experiments.sweeps.run_one import Progress as Listener
from ksmcluster.experiments.sweeps.run_one import RunDone
from ksmcluster.report import text
from ksmcluster.report.jupyter import JupyterBar, is_live


@contextmanager
def shown(console: Console, *, quiet: bool = False) -> Iterator[Listener]:
    """Yield a listener that shows the progress of the sweep and the remaining time on the console."""
    if quiet:
        yield lambda _done: None
    elif console.is_jupyter:
        bar = JupyterBar("run")
        yield lambda done: bar.show(done.done, done.total, f"{_did(done)}; {_left(done)}")
    elif is_live(console):
        columns = (TextColumn("runs"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(
            *columns, TextColumn("{task.fields[note]}"), console=console, transient=True
        ) as progress:
            task = progress.add_task("runs", total=None, note="")
            yield lambda done: progress.update(
                task, completed=done.done, total=done.total, note=f"{_left(done)}; {_did(done)}"
            )
    else:
        yield lambda done: console.print(_line(done), markup=False, highlight=False, soft_wrap=True)


def _line(done: RunDone) -> str:
    seconds = text.seconds(done.record.wall_seconds)
    return f"run {done.done} of {done.total}: {_did(done)}; took {seconds}, {_left(done)}"


def _did(done: RunDone) -> str:
    key, saved = done.record.key, done.record.figures.get("saved_bytes")
    what = f"point {key.point} ({done.point.label}), seed {key.seed}"
    if done.record.error:
        return f"{what}: failed: {done.record.error}"
    return what if saved is None else f"{what}: {text.size(saved)} saved"


def _left(done: RunDone) -> str:
    return f"about {text.seconds(done.seconds_left)} left" if done.seconds_left else "none left"
