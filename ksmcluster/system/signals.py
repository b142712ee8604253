"""SIGINT (Ctrl-C), SIGTERM (from scancel, timeout) and SIGHUP (from a closed terminal) end a command.

The first signal raises SystemExit in the main thread, so that cleanup code runs. Another thread makes sure
that the process ends: it reads the byte that Python writes for each signal (`signal.set_wakeup_fd`), so it
notices signals even while the main thread is in C code and runs no handler. It raises again if a library has
swallowed the exception. When the time is over, or soon after a second signal, it ends the process and its
descendants.

Handlers belong to the process, and so does the state of this module. It is imported first and imports little.
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

#: Messages by exit code: 128 + the signal, as in shells.
ENDED = {
    128 + signal.SIGINT: "interrupted",
    128 + signal.SIGTERM: "terminated",
    128 + signal.SIGHUP: "hung up",
}
#: Seconds from the first signal until the command is ended by force.
_LIMIT = 8.0
#: Seconds from a second signal until the command is ended by force.
_IMPATIENT_LIMIT = 1.0
#: Seconds after SIGTERM for a pass to end and its checkpoint to be written.
_PASS_LIMIT = 6.0
#: A repeated signal within this time is not a second one: `timeout` signals both the process and its group.
_ECHO = 0.5
#: Seconds between checks whether the main thread is ending.
_LOOK = 0.25


class _Command:
    """The state of ending this process."""

    def __init__(self) -> None:
        #: PID of the process that handles signals: a forked process briefly has the same handlers.
        self.pid = os.getpid()
        #: The signal that ends the command.
        self.number = 0
        #: Whether the main thread is in `unwound_by_signals`: before and after, nothing needs cleanup.
        self.unwinds = False
        #: Whether SystemExit has been raised.
        self.raised = False
        #: Whether SIGTERM waits for the end of a pass.
        self.defers = False
        #: Number of active blocks that the end must wait for.
        self.held = 0
        #: Returns an addition to the message.
        self.note: Callable[[], str] = str
        self.end_lock = _thread.allocate_lock()


_command = _Command()
_MAIN_THREAD = _thread.get_ident()
#: The previous handlers; empty if ours are not installed.
_earlier: dict[signal.Signals, object] = {}


def heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return the signals that are not ignored: nohup ignores some on purpose."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _is_command() -> bool:
    if "--multiprocessing-fork" in sys.orig_argv:  # a process of a sweep, with the arguments of the first
        return False
    if sys.argv[:1] == ["-m"]:  # the packages of the main module are being imported
        return any(word in ("ksmcluster", "ksmcluster.cli") for word in sys.orig_argv)
    return os.path.basename(sys.argv[0] if sys.argv else "") == "ksmcluster"  # noqa: PTH119 (imports little)


#: Whether this process is the command, not another program that imports the package.
IS_COMMAND = _is_command()


def install() -> None:
    """Let signals end this process from now on; before `unwound_by_signals`, they end it at once."""
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
    """Let signals raise SystemExit inside, so that cleanup code runs, and then end the process.

    Afterwards the command ignores signals, because it is over; another program gets its own handlers back.
    """
    is_embedded = not _earlier
    install()
    _command.unwinds = True
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in ENDED:  # from another handler, in `validate`
            end(error.code - 128)
        if _command.number:  # a library may have replaced our exception
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
    """Keep the process alive inside, even if the time is over: other processes depend on this block."""
    _command.held += 1
    try:
        yield
    finally:
        _command.held -= 1


@contextmanager
def sigterm_deferred() -> Iterator[None]:
    """Defer SIGTERM inside for some seconds: it sets `is_ending`, and `go_on` then raises."""
    _command.defers = bool(_earlier)
    try:
        yield
        go_on()
    finally:
        _command.defers = False


def is_ending() -> bool:
    """Return whether a signal has arrived."""
    return bool(_command.number)


def go_on() -> None:
    """Raise SystemExit if a deferred signal has arrived."""
    if _command.number and not _command.raised:
        _command.raised = True
        raise SystemExit(128 + _command.number)


def set_note(note: Callable[[], str]) -> None:
    """Set the function that returns an addition to the message when a signal ends the command."""
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
    """Show an exception from a destructor or callback, except ours, which is raised again."""
    if not (_command.number and isinstance(ignored.exc_value, SystemExit)):
        sys.__unraisablehook__(ignored)


class _Watcher:
    """Ends the process in time after a signal."""

    def __init__(self, reader: int, numbers: frozenset[int]) -> None:
        self.reader = reader
        self.numbers = numbers
        #: Times of the first and the last signal, and of the forced end.
        self.first = self.last = self.deadline = 0.0
        #: Time of the last reminder of the main thread, and number of our own signals that will be read back.
        self.reminded = 0.0
        self.echoes = 0

    def run(self) -> None:
        """Read signals until the command is over, and act on them."""
        while True:
            ready = select.select([self.reader], [], [], _LOOK if self.deadline else None)[0]
            found = os.read(self.reader, 64) if ready else b""
            if ready and not found:  # closed because the command is over
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
        """End the process if it is time; otherwise remind the main thread if it has not reacted."""
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
            # Unlike `interrupt_main`, a signal wakes the thread from a system call. It may sleep there,
            # because the kernel can deliver the first signal to another thread.
            signal.pthread_kill(_MAIN_THREAD, _command.number)


def _is_unwinding() -> bool:
    """Return whether the main thread is handling an exception, as it does in `finally` and `__exit__`."""
    return sys._current_exceptions().get(_MAIN_THREAD) not in (None, (None, None, None))


def end(number: int) -> NoReturn:
    """Print which signal ended the command, end its descendants, and exit."""
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
    """Write a line directly to stderr; the terminal may be closed or stopped."""
    with suppress(OSError):
        if _thread.get_ident() != _MAIN_THREAD and os.isatty(2):  # a live display may have hidden the cursor
            line = f"\r\x1b[K\x1b[?25h{line}"
        if select.select([], [2], [], _LOOK)[1]:
            os.write(2, f"{line}\n".encode())
        # Ray's threads may print complaints when its processes end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
