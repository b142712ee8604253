"""System calls made in one thread of another process by ptrace(2).

No code is injected and no memory of the process is written. An existing instruction of the process (in the
vDSO) runs with other registers, while all signals of the thread are blocked. Afterwards the registers and
the signal mask are restored, and an interrupted system call continues as if nothing had happened:

- The kernel itself repeats most calls, with the remaining time, when the thread continues from a stop at
  which signals are delivered. Therefore the thread is brought to such a stop before it is released.
- A few calls (epoll_wait, semop, sigtimedwait, io_getevents, ...) return EINTR after any stop. They have done
  nothing then, so they are repeated. Their time limit, if any, starts again.

Other calls on sockets with SO_RCVTIMEO or SO_SNDTIMEO are not repeated: they return EINTR, as they do after
SIGSTOP and SIGCONT. On arm64, if a signal with a handler arrives during the stop, the interrupted call
restarts after the handler even without SA_RESTART. A thread that computes in streaming mode (SME) loses its
vector registers, so a waiting thread is preferred.

When a tracing thread ends, the kernel detaches it from everything that it traces (kernel/exit.c), so each
stop uses its own tracing thread. SIGKILL of the tracing process during the stop leaves the traced thread with
wrong registers, as under every debugger; after the stop it has no effect.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ksmcluster.capture.tracing.registers import Architecture, Words
from ksmcluster.capture.tracing.threads import Thread, quietest_thread

_CONT, _DETACH, _SYSCALL = 7, 17, 24
_GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_GET_RSEQ_CONFIGURATION, _GET_SYSCALL_USER_DISPATCH = 0x420F, 0x4211
_TRACESYSGOOD, _SUSPEND_SECCOMP = 1, 1 << 21
_EVENT_STOP = 128
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_NT_PRSTATUS, _NT_ARM_SYSTEM_CALL = 1, 0x404
_WALL = 0x40000000
_MASK_BYTES = 8
_VECTOR_BYTES = 1 << 17
_NO_CALL = -1

NO_PERMISSION = "no permission to trace it: run as root (CAP_SYS_PTRACE)"

_STOP_SECONDS = 1.0
_BUSY_SECONDS = 0.005
"""Waiting for a stop spins for this long: a sleep would make the pause longer."""
_ATTEMPTS = 100
_LOOKED_AT = 1 << 22
"""Bytes of an executable mapping to search for the instruction."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class TracingError(Exception):
    """A process cannot be traced; the message says why, to follow a colon."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """Call ptrace(2); raises OSError."""
    ctypes.set_errno(0)
    found: int = _libc.ptrace(request, tid, address, data)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def ptrace_is_permitted() -> bool:
    """Return whether this process may call ptrace(2) at all, whatever the target."""
    with suppress(ProcessLookupError):  # expected: no process traces itself
        try:
            ptrace(_INTERRUPT, os.getpid())
        except PermissionError:
            return False
    return True


@contextmanager
def stopped_thread(pid: int, machine: Architecture) -> Iterator[StoppedThread]:
    """Stop one thread of a process during the block, then let it continue as if nothing had happened.

    Raises ProcessLookupError if the process or the thread ends, TracingError if it cannot be traced.
    """
    thread = None
    try:
        for attempt in range(_ATTEMPTS):
            time.sleep(0.001 * bool(attempt))
            thread = StoppedThread(pid, quietest_thread(pid, machine), machine)
            thread.check()
            if thread.has_instruction() and not thread.in_restartable_sequence():
                break
            thread.let_go()
        else:
            raise TracingError("it constantly executes other programs or is in restartable sequences (rseq)")
        thread.begin()
        yield thread
    finally:
        if thread:
            thread.let_go()


class StoppedThread:
    """A stopped thread of another process; not thread-safe."""

    def __init__(self, pid: int, thread: Thread, machine: Architecture) -> None:
        """Stop the thread."""
        self._pid = pid
        self._tid = thread.tid
        self._waiting = thread.waiting
        self._machine = machine
        self._instruction = find_instruction(pid, machine)
        # This must not collect the exit status of other children of this process.
        is_our_child = _status(pid, thread.tid)["PPid"] == str(os.getpid()) and thread.tid == pid
        self._awaited = os.WSTOPPED | (0 if is_our_child else os.WEXITED) | _WALL | os.WNOHANG
        self._registers: Words | None = None
        self._mask = bytes(_MASK_BYTES)
        self._vectors: dict[int, bytes] = {}
        self._held: list[int] = []
        self._seize()
        self.since = time.monotonic()
        ptrace(_INTERRUPT, self._tid)
        self._reach_event_stop()
        self._stopped = True

    def check(self) -> None:
        """Raise TracingError for a thread of an unsupported kind."""
        if not self._machine.is_64_bit(self._get(_NT_PRSTATUS)):
            raise TracingError("it is a 32-bit process")
        dispatch = self._read(_GET_SYSCALL_USER_DISPATCH, "=4Q")
        if dispatch and dispatch[0]:
            raise TracingError("it handles its system calls itself (syscall user dispatch)")

    def has_instruction(self) -> bool:
        """Return whether the instruction is still there, and no other program was executed meanwhile."""
        with Path(f"/proc/{self._pid}/mem").open("rb", buffering=0) as memory, suppress(OSError):
            expected = self._machine.instruction
            return os.pread(memory.fileno(), len(expected), self._instruction) == expected
        return False

    def in_restartable_sequence(self) -> bool:
        """Return whether the thread is in a restartable sequence (rseq(2)), which allows no calls."""
        configuration = self._read(_GET_RSEQ_CONFIGURATION, "=QIIII")
        if not configuration or not configuration[0]:
            return False
        with Path(f"/proc/{self._pid}/mem").open("rb", buffering=0) as memory:
            (sequence,) = struct.unpack("=Q", os.pread(memory.fileno(), 8, configuration[0] + 8))
            if not sequence:
                return False
            _, start, length, _ = struct.unpack("=4Q", os.pread(memory.fileno(), 32, sequence))
        counter = self._get(_NT_PRSTATUS)[self._machine.counter]
        return bool(start <= counter < start + length)

    def begin(self) -> None:
        """Save the state that has to be restored, and block all signals."""
        registers = self._get(_NT_PRSTATUS)
        for kind in self._machine.vector_state:
            with suppress(OSError):  # this processor does not have these registers
                self._vectors[kind] = self._get_bytes(kind, _VECTOR_BYTES)
        mask = ctypes.create_string_buffer(_MASK_BYTES)
        ptrace(_GETSIGMASK, self._tid, _MASK_BYTES, ctypes.addressof(mask))
        self._mask = mask.raw
        self._registers = self._machine.going_on(registers, self._waiting)
        self._set_mask(b"\xff" * _MASK_BYTES)
        if self._machine.rewinds_early:
            self._skip_restart()

    def call(self, number: int, *arguments: int) -> int:
        """Make a system call in the thread and return its result; raises OSError."""
        assert self._registers
        self._set(self._machine.calling(self._registers, self._instruction, number, arguments))
        self._reach_syscall_stop()
        self._reach_syscall_stop()
        return self._machine.result_of(self._get(_NT_PRSTATUS))

    def let_go(self) -> None:
        """Restore everything and detach; do nothing if the thread has ended or is already detached.

        At a stop for a system call, arm64 does not allow x7 to be written: another stop is needed for it.
        """
        if not self._stopped:
            return
        self._stopped = False
        with suppress(ProcessLookupError):
            if self._registers:
                ptrace(_INTERRUPT, self._tid)
                with suppress(ProcessLookupError):  # it runs because a call did not return in time
                    ptrace(_CONT, self._tid)
                self._reach_event_stop()
                for kind, data in self._vectors.items():
                    self._set_bytes(kind, data)
                self._set(self._registers)
                self._set_mask(self._mask)
            ptrace(_DETACH, self._tid)
            for number in self._held:
                os.kill(self._pid, number)

    def _seize(self) -> None:
        filtered = _status(self._pid, self._tid)["Seccomp"] != "0"
        try:
            ptrace(_SEIZE, self._tid, 0, _TRACESYSGOOD | (_SUSPEND_SECCOMP if filtered else 0))
        except OSError as error:
            if isinstance(error, ProcessLookupError):
                raise
            if _status(self._pid, self._tid)["TracerPid"] != "0":
                raise TracingError("another program traces it (a debugger or strace)") from error
            if filtered:
                raise TracingError("it has a seccomp filter that cannot be suspended") from error
            raise TracingError(NO_PERMISSION) from error

    def _skip_restart(self) -> None:
        """Let the kernel prepare the restart of an interrupted call, save it, and do not make the call."""
        assert self._registers
        machine, registers = self._machine, self._registers
        counter = registers[machine.counter]
        with Path(f"/proc/{self._pid}/mem").open("rb", buffering=0) as memory:
            size = len(machine.instruction)
            if os.pread(memory.fileno(), size, counter) != machine.instruction:
                return
        self._set(registers)
        self._reach_syscall_stop()
        number = self._get(_NT_PRSTATUS)[machine.number]
        self._registers = (*registers[: machine.number], number, *registers[machine.number + 1 :])
        self._set_bytes(_NT_ARM_SYSTEM_CALL, struct.pack("=i", _NO_CALL))
        self._reach_syscall_stop()

    def _reach_event_stop(self) -> None:
        while (stop := self._next_stop()) >> 8 != _EVENT_STOP:
            self._hold(stop)
            ptrace(_CONT, self._tid)

    def _reach_syscall_stop(self) -> None:
        ptrace(_SYSCALL, self._tid)
        while (stop := self._next_stop()) != _SYSCALL_STOP:
            if stop in _FAULTS:
                raise TracingError("it cannot make a system call")
            self._hold(stop)
            ptrace(_SYSCALL, self._tid)

    def _hold(self, stop: int) -> None:
        """Keep a signal that cannot be blocked (SIGSTOP) for later; a faulting instruction faults again."""
        if stop >> 8 == 0 and stop != _SYSCALL_STOP and stop not in _FAULTS:
            self._held.append(stop)

    def _next_stop(self) -> int:
        """Wait for a stop and return its signal, with the event in the higher bits (event << 8)."""
        begin = time.monotonic()
        while True:
            try:
                found = os.waitid(os.P_PID, self._tid, self._awaited)
            except ChildProcessError as error:
                raise ProcessLookupError(self._tid) from error
            if found and found.si_code != os.CLD_TRAPPED:
                raise ProcessLookupError(self._tid)
            if found:
                return found.si_status
            waited = time.monotonic() - begin
            if waited > _STOP_SECONDS:
                raise TracingError(f"it did not stop within {_STOP_SECONDS:g} s")
            if waited < _BUSY_SECONDS:
                os.sched_yield()
            else:
                time.sleep(0.001)

    def _get(self, kind: int) -> Words:
        data = self._get_bytes(kind, 8 * self._machine.words)
        return struct.unpack(f"={len(data) // 8}Q", data[: len(data) // 8 * 8])

    def _set(self, words: Words) -> None:
        self._set_bytes(_NT_PRSTATUS, struct.pack(f"={len(words)}Q", *words))

    def _get_bytes(self, kind: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        vector = _Vector(ctypes.addressof(buffer), size)
        ptrace(_GETREGSET, self._tid, kind, ctypes.addressof(vector))
        return buffer.raw[: vector.size]

    def _set_bytes(self, kind: int, data: bytes) -> None:
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = _Vector(ctypes.addressof(buffer), len(data))
        ptrace(_SETREGSET, self._tid, kind, ctypes.addressof(vector))

    def _set_mask(self, mask: bytes) -> None:
        buffer = ctypes.create_string_buffer(mask, _MASK_BYTES)
        ptrace(_SETSIGMASK, self._tid, _MASK_BYTES, ctypes.addressof(buffer))

    def _read(self, request: int, form: str) -> tuple[int, ...] | None:
        """Return the structure that a request fills; None if this kernel does not have the request."""
        buffer = ctypes.create_string_buffer(struct.calcsize(form))
        try:
            ptrace(request, self._tid, len(buffer), ctypes.addressof(buffer))
        except ProcessLookupError:
            raise
        except OSError:
            return None
        return struct.unpack(form, buffer.raw)


def find_instruction(pid: int, machine: Architecture) -> int:
    """Return the address of a system call instruction in the process, in the vDSO if there is one."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        span, permissions, *rest = line.split()
        if "x" in permissions and rest[-1] != "[vsyscall]":
            start, end = (int(word, 16) for word in span.split("-"))
            ranges.append((rest[-1] != "[vdso]", start, end))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for _, start, end in sorted(ranges):
            with suppress(OSError):  # not readable
                code = os.pread(memory.fileno(), min(end - start, _LOOKED_AT), start)
                at = code.find(machine.instruction)
                while at >= 0 and at % machine.alignment:
                    at = code.find(machine.instruction, at + 1)
                if at >= 0:
                    return start + at
    raise TracingError("it has no system call instruction")


def _status(pid: int, tid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/task/{tid}/status").read_text(errors="replace").splitlines()
    except FileNotFoundError as error:
        raise ProcessLookupError(tid) from error
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
