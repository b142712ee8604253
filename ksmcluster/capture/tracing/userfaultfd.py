"""A userfaultfd with asynchronous write protection in another process (ioctl_userfaultfd(2)).

It is created in the process, copied with pidfd_getfd(2), and closed there: the process keeps no additional
descriptor, and is stopped only for these two calls. The kernel binds a userfaultfd to the memory in which it
was created, so its owner can register mappings without another stop. When it is closed, or when its owner
ends (even by SIGKILL), the kernel removes the registrations and all protection.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.pagemap import IS_PRESENT, IS_SWAPPED, IS_WRITTEN, scan
from ksmcluster.capture.tracing.ptrace import stopped_thread
from ksmcluster.capture.tracing.registers import Architecture
from ksmcluster.system.signals import undisturbed

_USER_MODE_ONLY = 1
"""Every user may set this flag; asynchronous protection still lets the kernel's own writes pass."""
_FLAGS = os.O_CLOEXEC | _USER_MODE_ONLY
_API, _REGISTER, _WRITEPROTECT = 0xC018AA3F, 0xC020AA00, 0xC018AA06
_API_VERSION = 0xAA
_WP_UNPOPULATED, _WP_ASYNC = 1 << 13, 1 << 15
_REGISTER_MODE_WP = 2

_PROTECT, _ONLY_ASYNC = 1, 2
"""Flags of PAGEMAP_SCAN; the first one is also that of UFFDIO_WRITEPROTECT."""

_PIDFD_GETFD = 438

_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
"""Signals that end a process from outside."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Ranges = NDArray[np.int64]
"""Page numbers int64[n, 2], ascending: the first of each range, and the one after its last."""


class Userfaultfd:
    """Owner of a userfaultfd of this or another process, ready for asynchronous write protection."""

    def __init__(self, descriptor: int) -> None:
        """Take ownership of the descriptor. Raises OSError (EINVAL) before Linux 6.7 (on arm64, 6.10)."""
        # A file object closes its descriptor even if an exception (Ctrl-C) strikes before it has an owner.
        # A destructor in Python could itself be interrupted.
        self._file = FileIO(descriptor)
        try:
            fcntl.ioctl(self._file, _API, struct.pack("=3Q", _API_VERSION, _WP_ASYNC | _WP_UNPOPULATED, 0))
        except OSError:
            self.close()
            raise

    def register(self, start: int, end: int) -> None:
        """Register the mapping between two addresses; do nothing if it is already registered here.

        Raises OSError: EBUSY if it belongs to another userfaultfd, ProcessLookupError if the memory is
        gone because the process ended or executed another program.
        """
        request = struct.pack("=4Q", start, end - start, _REGISTER_MODE_WP, 0)
        try:
            fcntl.ioctl(self._file, _REGISTER, request)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                self._check_memory(start)
            raise

    def _check_memory(self, start: int) -> None:
        """Raise ProcessLookupError if the memory is gone, which `register` does not notice."""
        with suppress(FileNotFoundError):  # that page is not registered
            fcntl.ioctl(self._file, _WRITEPROTECT, struct.pack("=3Q", start, PAGE_SIZE, _PROTECT))

    def close(self) -> None:
        """Unregister everything."""
        self._file.close()


def open_here(machine: Architecture) -> Userfaultfd:
    """Return a userfaultfd of this process, created as `open_in` creates it. Raises OSError."""
    made = _system_call(machine.userfaultfd, _FLAGS)
    pidfd = -1
    try:
        pidfd = os.pidfd_open(os.getpid())
        return Userfaultfd(_system_call(_PIDFD_GETFD, pidfd, made, 0))
    finally:
        os.close(made)
        if pidfd >= 0:
            os.close(pidfd)


def open_in(pid: int, pidfd: int, machine: Architecture) -> tuple[Userfaultfd, float]:
    """Return a userfaultfd of another process, and the seconds for which one of its threads was stopped.

    Raises ProcessLookupError if the process or the thread ends meanwhile, TracingError if the process
    cannot be traced, and other OSErrors from the calls in the process (EMFILE).
    """
    # A separate tracing thread: when it ends, for whatever reason, the kernel detaches it from the process.
    with _signals_wait(), ThreadPoolExecutor(1) as executor:
        return executor.submit(_open_in, pid, pidfd, machine).result()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Handle signals only after the block: if this process ended in it, the other one would stay broken.

    A signal mask is not enough: threads of libraries (OpenBLAS) would take the signals.
    """
    with ExitStack() as stack:
        came: list[int] = []
        if threading.current_thread() is threading.main_thread():
            stack.callback(_raise_signals, came)
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):
                    stack.callback(signal.signal, number, handler)  # first: a signal may arrive in between
                    signal.signal(number, lambda number, _: came.append(number))
        yield


def _raise_signals(numbers: list[int]) -> None:
    for number in numbers:
        signal.raise_signal(number)


def _open_in(pid: int, pidfd: int, machine: Architecture) -> tuple[Userfaultfd, float]:
    with undisturbed(), stopped_thread(pid, machine) as thread:
        made = thread.call(machine.userfaultfd, _FLAGS)
        try:
            taken = _system_call(_PIDFD_GETFD, pidfd, made, 0)
        finally:
            thread.call(machine.close, made)
    return Userfaultfd(taken), time.monotonic() - thread.since


def _system_call(number: int, *arguments: int) -> int:
    found: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def take_written(pagemap: int, start: int, end: int) -> Ranges:
    """Return which pages of a registered mapping were written since the last call, and protect them again.

    A new page counts as written, an absent page does not. The process is not stopped. Raises
    OSError (EPERM) if part of the mapping is not registered.
    """
    there = IS_PRESENT | IS_SWAPPED  # otherwise the kernel creates page tables for the whole address space
    pages = start // PAGE_SIZE, end // PAGE_SIZE
    found = scan(pagemap, *pages, any_of=there, all_of=IS_WRITTEN, flags=_PROTECT | _ONLY_ASYNC)
    return np.concatenate([np.empty((0, 2), np.int64), *found])
