"""The progress of a simulation: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.machine.pass_result import (
    ActorsStarting,
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointWritten,
    Event,
    PassDone,
    PassResult,
    PassStarted,
    RunRestarting,
    RunStarting,
)
from ksmcluster.report import text
from ksmcluster.report.jupyter import JupyterBar, is_live
from ksmcluster.results.result import saved_bytes

Listener = Callable[[Event], None]
#: Called with a few words about what begins now.
Tell = Callable[[str], None]


@contextmanager
def shown(console: Console, *, quiet: bool = False, plan: str = "", step: str = "pass") -> Iterator[Listener]:
    """Yield a listener that shows events on the console, and `plan` when the run starts.

    `step` is what checkpoints count: "pass", or "round".
    """
    if quiet:
        lines = _Lines(console, plan, step)
        yield lambda event: lines(event) if isinstance(event, CheckpointFailed) else None
    elif console.is_jupyter:
        yield _InJupyter()
    elif is_live(console):
        with _bars(console) as progress:
            yield _Live(progress, plan, step)
    else:
        yield _Lines(console, plan, step)


@contextmanager
def telling(console: Console, *, quiet: bool = False) -> Iterator[Tell]:
    """Yield a function that shows messages: on one line of a terminal, elsewhere a line each."""
    if quiet:
        yield lambda _what: None
    elif is_live(console):
        with console.status("") as status:
            yield status.update
    else:
        yield lambda what: console.print(what, markup=False, highlight=False, soft_wrap=True)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:9}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )


def _line(event: Event, step: str) -> str:
    """Return a line about a checkpoint or a restarted run; "" for other events."""
    match event:
        case CheckpointWritten(steps, size, seconds):
            return f"checkpoint after {step} {steps}: {text.size(size)} in {text.seconds(seconds)}"
        case CheckpointFailed(reason):
            return f"no checkpoint: {reason}; the run continues"
        case CheckpointDamaged(reason):
            return f"{reason}; continuing from the previous checkpoint"
        case RunRestarting(reason, steps):
            return f"{reason}; continuing after {step} {steps}" if steps else f"{reason}; starting again"
    return ""


def _did(result: PassResult, total: int | None) -> str:
    """Return what a pass did and how fast; without a total, also the simulated time so far."""
    pages = int(result.nodes["pages_scanned"].sum())
    saved = int(saved_bytes(result.nodes).sum())
    rate = f"{pages / result.wall_seconds:,.0f} pages/s, " if result.wall_seconds else ""
    time = "" if total else f"{text.seconds(result.simulated_seconds)} simulated, "
    return f"{time}{rate}{text.size(saved)} saved"


class _Live:
    """A bar for the start, and one for the passes."""

    def __init__(self, progress: Progress, plan: str, step: str) -> None:
        self.progress = progress
        self.plan = plan
        self.step = step
        self.task = progress.add_task("starting", total=None, note="")
        self.in_passes = False
        self.passes: int | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarting():
                self.progress.console.print(self.plan, markup=False, highlight=False, soft_wrap=True)
            case ActorsStarting(done, total):
                self.progress.update(self.task, completed=done, total=total, note="node actors")
            case PassStarted(number, total):
                self._start_passes(total)
                self.progress.update(self.task, completed=number - 1)
            case PassDone(result):
                note = _did(result, self.passes)
                self.progress.update(self.task, completed=result.number, note=note)
            case _:
                self.progress.console.print(
                    _line(event, self.step), markup=False, highlight=False, soft_wrap=True
                )

    def _start_passes(self, total: int | None) -> None:
        if not self.in_passes:
            self.in_passes = True
            self.passes = total
            self._end_start()
            self.task = self.progress.add_task("passes", total=total, note="")

    def _end_start(self) -> None:
        if any(task.total for task in self.progress.tasks):
            self.progress.stop_task(self.task)
        else:
            # No actors had to be started.
            self.progress.remove_task(self.task)


class _InJupyter:
    """A bar for the start, and one for the passes."""

    def __init__(self) -> None:
        self.starting, self.running = JupyterBar("node actors"), JupyterBar("pass")
        self.passes: int | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case ActorsStarting(done, total):
                self.starting.show(done, total, "ready")
            case PassStarted(_, total):
                self.passes = total
            case PassDone(result):
                self.running.show(result.number, self.passes, _did(result, self.passes))


class _Lines:
    """A line for each event; for actors, one per quarter of them."""

    def __init__(self, console: Console, plan: str, step: str) -> None:
        self.console = console
        self.plan = plan
        self.step = step
        self.start = time.perf_counter()
        self.passes: int | None = None
        self.quarters = 0

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarting():
                self._print(self.plan)
            case ActorsStarting(done, total):
                self._actors(done, total)
            case PassStarted(_, total):
                self.passes = total
            case PassDone(result):
                of = f" of {self.passes}" if self.passes else ""
                self._print(f"pass {result.number}{of}: {_did(result, self.passes)}")
            case _:
                self._print(_line(event, self.step))

    def _actors(self, done: int, total: int) -> None:
        if done == 0:
            self._print(f"starting {text.counted(total, 'node actor')}")
        quarters = 4 * done // total
        if quarters > self.quarters:
            self.quarters = quarters
            took = text.seconds(time.perf_counter() - self.start)
            self._print(f"{done} of {total} node actors ready after {took}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
