"""SIGINT (Ctrl-C), SIGTERM (of scancel, timeout) and SIGHUP (of a terminal that is gone) end a command.

The first signal raises SystemExit in the main thread, so that all that has to be undone is undone. Another
thread makes sure that the process ends: it reads the byte that Python writes for each signal
(`signal.set_wakeup_fd`), so it knows of signals while the main thread is in C code and runs no handler. It
raises once more if a library has swallowed the exception. When the time is over, or soon after a second
signal, it ends the process and all that this has started.

Handlers belong to the process, and so does what this module knows. Imported first of all: it imports little.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

#: What to say, by exit code: 128 + the signal, as shells have it.
ENDED = {
    128 + signal.SIGINT: "interrupted",
    128 + signal.SIGTERM: "terminated",
    128 + signal.SIGHUP: "hung up",
}
#: Seconds from the first signal to the end, if the command does not end by itself.
_LIMIT = 8.0
#: Seconds from a second signal to the end.
_IMPATIENT_LIMIT = 1.0
#: Seconds that SIGTERM leaves a pass to end and its checkpoint to be written.
_PASS_LIMIT = 6.0
#: The same signal within so many seconds is no second one: `timeout` sends it to the process and its group.
_ECHO = 0.5
#: Seconds between two looks at whether the main thread is ending.
_LOOK = 0.25


class _Command:
    """What this process knows of its end."""

    def __init__(self) -> None:
        #: The process whose signals these are: one that it forks has the same handlers for a moment.
        self.pid = os.getpid()
        #: The signal that ends the command.
        self.number = 0
        #: Whether the main thread is in `unwound_by_signals`: before and after, nothing has to be undone.
        self.unwinds = False
        #: Whether SystemExit has been raised.
        self.raised = False
        #: Whether SIGTERM waits for the end of a pass.
        self.defers = False
        #: How many blocks are under way that the end must wait for.
        self.held = 0
        #: Returns what the line says besides.
        self.note: Callable[[], str] = str
        self.end_lock = _thread.allocate_lock()


_command = _Command()
_MAIN_THREAD = _thread.get_ident()
#: Handlers from before; empty if ours are not installed.
_earlier: dict[signal.Signals, object] = {}


def heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those of the signals that are not ignored; whoever started us with nohup wants it so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _is_command() -> bool:
    if "--multiprocessing-fork" in sys.orig_argv:  # a process of a sweep, with the arguments of the first
        return False
    if sys.argv[:1] == ["-m"]:  # the packages of the main module are being imported
        return any(word in ("ksmcluster", "ksmcluster.cli") for word in sys.orig_argv)
    return os.path.basename(sys.argv[0] if sys.argv else "") == "ksmcluster"  # noqa: PTH119 (imports little)


#: Whether this process is the command, and no other program that imports the package.
IS_COMMAND = _is_command()


def install() -> None:
    """Let signals end this process from now on; until `unwound_by_signals`, at once."""
    if _earlier:
        return
    numbers = heeded(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        _earlier[number] = signal.signal(number, _handle)
    sys.unraisablehook = _show_unraisable
    _thread.start_new_thread(_Watcher(reader, frozenset(numbers)).run, ())


@contextmanager
def unwound_by_signals() -> Iterator[None]:
    """Signals raise SystemExit inside, so that all that has to be undone is undone, and end the process.

    Afterwards the command ignores them, as it is over; another program has its own handlers again.
    """
    is_embedded = not _earlier
    install()
    _command.unwinds = True
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in ENDED:  # of another handler, in `validate`
            end(error.code - 128)
        if _command.number:  # a library may have made another exception of ours
            end(_command.number)
        raise
    finally:
        _command.unwinds = False
        for number, handler in _earlier.items():
            signal.signal(number, handler if is_embedded else signal.SIG_IGN)  # type: ignore[arg-type]
        if is_embedded:
            sys.unraisablehook = sys.__unraisablehook__
            os.close(signal.set_wakeup_fd(-1))
            _earlier.clear()


@contextmanager
def undisturbed() -> Iterator[None]:
    """The process is not ended inside, even if the time is over: others depend on what is done there."""
    _command.held += 1
    try:
        yield
    finally:
        _command.held -= 1


@contextmanager
def sigterm_deferred() -> Iterator[None]:
    """SIGTERM raises nothing inside for some seconds: `is_ending` is true, and `go_on` raises then."""
    _command.defers = bool(_earlier)
    try:
        yield
        go_on()
    finally:
        _command.defers = False


def is_ending() -> bool:
    """Return whether a signal has come."""
    return bool(_command.number)


def go_on() -> None:
    """Raise SystemExit if a signal has come that was deferred."""
    if _command.number and not _command.raised:
        _command.raised = True
        raise SystemExit(128 + _command.number)


def set_note(note: Callable[[], str]) -> None:
    """Set what returns what the line says besides, if a signal ends the command."""
    _command.note = note


def _handle(number: int, _: FrameType | None) -> None:
    if os.getpid() != _command.pid:
        os._exit(128 + number)
    if _command.end_lock.locked():
        return
    _command.number = _command.number or number
    if not _command.unwinds:
        end(_command.number)
    if not (_command.defers and _command.number == signal.SIGTERM):
        go_on()


def _show_unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """Show an exception that a destructor or a callback has raised, but not ours: it is raised once more."""
    if not (_command.number and isinstance(ignored.exc_value, SystemExit)):
        sys.__unraisablehook__(ignored)


class _Watcher:
    """Ends the process in time once a signal has come."""

    def __init__(self, reader: int, numbers: frozenset[int]) -> None:
        self.reader = reader
        self.numbers = numbers
        #: When the first signal came, and when the last; and until when the process may live.
        self.first = self.last = self.deadline = 0.0
        #: When the main thread was reminded, and how many signals of ours are to be read again for that.
        self.reminded = 0.0
        self.echoes = 0

    def run(self) -> None:
        """Read signals until the command is over, and act on them."""
        while True:
            ready = select.select([self.reader], [], [], _LOOK if self.deadline else None)[0]
            found = os.read(self.reader, 64) if ready else b""
            if ready and not found:  # closed, as the command is over
                os.close(self.reader)
                return
            now = time.monotonic()
            for number in self.numbers.intersection(self._without_echoes(found)):
                self._note(number, now)
            if self.deadline:
                self._act(now)

    def _without_echoes(self, found: bytes) -> bytes:
        echoes, self.echoes = self.echoes, 0
        return found.replace(bytes([_command.number]), b"", echoes)

    def _note(self, number: int, now: float) -> None:
        if not self.deadline:
            self.first = self.reminded = now
            self.deadline = now + _LIMIT
            _command.number = _command.number or number
        elif number != _command.number or now > self.last + _ECHO:
            self.deadline = min(self.deadline, now + _IMPATIENT_LIMIT)
            _command.defers = False
        self.last = now

    def _act(self, now: float) -> None:
        """End the process if it is time; else remind the main thread if it goes on as if nothing had come."""
        if now >= self.deadline:
            end(_command.number)
        if now < self.reminded + _LOOK:
            return
        self.reminded = now
        if now >= self.first + _PASS_LIMIT:
            _command.defers = False
        if not _command.defers and not _is_unwinding():
            _command.raised = False
            self.echoes += 1
            # A signal wakes it from a system call, which `interrupt_main` does not: it may sleep, since the
            # kernel can have given the first signal to another thread.
            signal.pthread_kill(_MAIN_THREAD, _command.number)


def _is_unwinding() -> bool:
    """Return whether the main thread is handling an exception, as it does in `finally` and `__exit__`."""
    return sys._current_exceptions().get(_MAIN_THREAD) not in (None, (None, None, None))


def end(number: int) -> NoReturn:
    """Say in a line what ended the command, end all that it has started, and exit."""
    while not _command.end_lock.acquire(blocking=False):
        time.sleep(1)  # the other thread ends the process
    if _thread.get_ident() == _MAIN_THREAD:
        for ours in _earlier:
            signal.signal(ours, signal.SIG_IGN)
    while _command.held:
        time.sleep(0.01)
    note = _command.note()
    _write(f"{ENDED[128 + number]}; {note}" if note else ENDED[128 + number])
    if _command.unwinds:
        from ksmcluster.system.descendants import end_descendants

        end_descendants()
    os._exit(128 + number)


def _write(line: str) -> None:
    """Write a line to standard error, and nothing more; the terminal may be gone, or stopped."""
    with suppress(OSError):
        if _thread.get_ident() != _MAIN_THREAD and os.isatty(2):  # a live display may have hidden the cursor
            line = f"\r\x1b[K\x1b[?25h{line}"
        if select.select([], [2], [], _LOOK)[1]:
            os.write(2, f"{line}\n".encode())
        # Ray's threads may complain as its processes end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
