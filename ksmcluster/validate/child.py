"""A program with real memory that carries out commands on it.

Commands arrive through the file descriptors given as arguments: the first is its own, the others are for
processes to be forked later. It imports nothing of ksmcluster, so that it starts fast.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

PAGE_SIZE = mmap.PAGESIZE
_MAP_FIXED_NOREPLACE = 0x100000
#: System calls, equal on all architectures, and their arguments (linux/io_uring.h).
_IO_URING_SETUP, _IO_URING_REGISTER = 425, 427
_IO_URING_PARAMS_SIZE = 120
_IORING_REGISTER_BUFFERS = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def serve(connection: Connection) -> None:
    """Answer one command after another, until the other end is closed."""
    while True:
        try:
            command, *arguments = connection.recv()
        except EOFError:
            return
        if command == "fork":
            pid = os.fork()
            if pid == 0:
                connection = Connection(arguments[0])
            else:
                connection.send(pid)
            continue
        connection.send(_COMMANDS[command](*arguments))


def _map(address: int, pages: int) -> str:
    """Map private anonymous memory without huge pages."""
    size = pages * PAGE_SIZE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    if _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != address:
        return _error(-1)
    if error := _advise(address, pages, mmap.MADV_NOHUGEPAGE):
        return "" if error == "EINVAL" else error  # a kernel without huge pages does not have this advice
    return ""


def _advise(address: int, pages: int, advice: int) -> str:
    return _error(_libc.madvise(address, pages * PAGE_SIZE, advice))


def _unmap(address: int, pages: int) -> str:
    return _error(_libc.munmap(address, pages * PAGE_SIZE))


def _write(address: int, numbers: list[int], contents: bytes) -> str:
    """Write whole pages with these numbers, counted from the address."""
    for i, number in enumerate(numbers):
        content = contents[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
        ctypes.memmove(address + number * PAGE_SIZE, content, PAGE_SIZE)
    return ""


def _touch(address: int, pages: int) -> str:
    """Write a byte of each page; return the nanoseconds that this took."""
    memory = memoryview((ctypes.c_char * (pages * PAGE_SIZE)).from_address(address)).cast("B")
    ones = bytes([1]) * pages
    begin = time.perf_counter_ns()
    memory[::PAGE_SIZE] = ones
    return str(time.perf_counter_ns() - begin)


def _read(address: int, pages: int) -> str:
    for number in range(pages):
        ctypes.string_at(address + number * PAGE_SIZE, 1)
    return ""


def _pin(address: int, pages: int) -> str:
    """Register pages as a buffer of an io_uring, which stays open until the process ends."""
    ring = _libc.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(_IO_URING_PARAMS_SIZE))
    if ring < 0:
        return _error(ring)
    buffer = (ctypes.c_size_t * 2)(address, pages * PAGE_SIZE)
    return _error(_libc.syscall(_IO_URING_REGISTER, ring, _IORING_REGISTER_BUFFERS, buffer, 1))


def _error(result: int) -> str:
    return "" if result == 0 else errno.errorcode[ctypes.get_errno()]


_COMMANDS: dict[str, Any] = {
    "map": _map,
    "advise": _advise,
    "unmap": _unmap,
    "write": _write,
    "touch": _touch,
    "read": _read,
    "pin": _pin,
}

if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing has to wait for forked processes
    serve(Connection(int(sys.argv[1])))
    os._exit(0)
