"""Registers to make a system call, and to continue an interrupted one, on x86-64 and arm64."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = (1 << 64) - 1
_SHORTEST_ERROR = -4095
_RESTART_UNLESS_HANDLED = -514
"""ERESTARTNOHAND: the kernel repeats the call, or returns EINTR if a signal is handled."""
_X86_CODE_SEGMENT = 0x33
_ARM_BRANCH_TYPE = 0b11 << 10
"""PSTATE.BTYPE, which would make the processor refuse the jump to the instruction."""

Words = tuple[int, ...]
"""The registers of NT_PRSTATUS, 64 bits each."""


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A system call in which a thread waits (/proc/PID/task/TID/syscall)."""

    number: int
    first_argument: int
    stack: int
    counter: int


@dataclass(frozen=True, slots=True)
class _Architecture:
    words: int
    """Registers in NT_PRSTATUS."""
    instruction: bytes
    """The instruction that makes a system call."""
    alignment: int
    number: int
    """Index of the register that holds the number of a call before it is made."""
    arguments: Words
    """Indices of the registers for arguments."""
    result: int
    stack: int
    counter: int
    vector_state: tuple[int, ...]
    """Other register sets that a system call does not preserve."""
    userfaultfd: int
    close: int
    restarted: frozenset[int]
    """Calls that the kernel itself always repeats after an interruption."""
    repeatable: frozenset[int]
    """Calls that end with EINTR although no signal is handled, and then have done nothing (signal(7))."""

    def result_of(self, words: Words) -> int:
        """Return the result of a call. Raises OSError if the call failed."""
        value = _signed(words[self.result])
        if _SHORTEST_ERROR <= value < 0:
            raise OSError(-value, os.strerror(-value))
        return value

    def _with(self, words: Words, changes: dict[int, int]) -> Words:
        return tuple(changes.get(at, word) & _WORD for at, word in enumerate(words))

    def _arguments(self, values: Sequence[int]) -> dict[int, int]:
        return dict(zip(self.arguments, (*values, *[0] * 6), strict=False))


class X86(_Architecture):
    """x86-64: the kernel decides on a restart after a stop, by the registers at that time."""

    __slots__ = ()
    rewinds_early = False
    _ORIGINAL_NUMBER = 15
    _CODE_SEGMENT = 17

    def is_64_bit(self, words: Words) -> bool:
        """Return whether the thread runs 64-bit code."""
        return len(words) == self.words and words[self._CODE_SEGMENT] == _X86_CODE_SEGMENT

    def calling(self, words: Words, address: int, number: int, values: Sequence[int]) -> Words:
        """Return registers that make a call with the instruction at the address."""
        changes = {self.number: number, self.counter: address, self._ORIGINAL_NUMBER: -1}
        return self._with(words, changes | self._arguments(values))

    def going_on(self, words: Words, waiting: WaitingCall | None) -> Words:
        """Return registers with which a call that gave EINTR because of the stop is repeated."""
        gave = _signed(words[self.result])
        if gave == -errno.EINTR and words[self._ORIGINAL_NUMBER] in self.repeatable:
            return self._with(words, {self.result: _RESTART_UNLESS_HANDLED})
        return words


class Arm64(_Architecture):
    """arm64: before a stop, the kernel moves back to the instruction of an interrupted call.

    After the stop it decides only whether that becomes restart_syscall(2).
    """

    __slots__ = ()
    rewinds_early = True
    restart_number = 128
    _STATE = 33

    def is_64_bit(self, words: Words) -> bool:
        """Return whether the thread runs 64-bit code: 32-bit ones have fewer registers."""
        return len(words) == self.words

    def calling(self, words: Words, address: int, number: int, values: Sequence[int]) -> Words:
        """Return registers that make a call with the instruction at the address."""
        state = words[self._STATE] & ~_ARM_BRANCH_TYPE
        changes = {self.number: number, self.counter: address, self._STATE: state}
        return self._with(words, changes | self._arguments(values))

    def going_on(self, words: Words, waiting: WaitingCall | None) -> Words:
        """Return registers with which a call that gave EINTR because of the stop is repeated."""
        if waiting is None or _signed(words[self.result]) != -errno.EINTR:
            return words
        seen = WaitingCall(words[self.number], waiting.first_argument, words[self.stack], words[self.counter])
        if seen != waiting or seen.number not in self.repeatable:
            return words
        counter = waiting.counter - len(self.instruction)
        return self._with(words, {self.result: waiting.first_argument, self.counter: counter})


_X86_64 = X86(
    words=27,
    instruction=b"\x0f\x05",
    alignment=1,
    number=10,
    arguments=(14, 13, 12, 7, 9, 8),
    result=10,
    stack=19,
    counter=16,
    vector_state=(),
    userfaultfd=323,
    close=3,
    # poll, select, pause, nanosleep, wait4, rt_sigsuspend, futex, clock_nanosleep, waitid, pselect6, ppoll
    restarted=frozenset({7, 23, 34, 35, 61, 130, 202, 230, 247, 270, 271}),
    # read, accept, recvfrom, recvmsg, semop, rt_sigtimedwait, io_getevents, semtimedop, epoll_wait,
    # epoll_pwait, accept4, io_pgetevents, io_uring_enter, epoll_pwait2
    repeatable=frozenset({0, 43, 45, 47, 65, 128, 208, 220, 232, 281, 288, 333, 426, 441}),
)
_NT_ARM_SVE = 0x405
_ARM64 = Arm64(
    words=34,
    instruction=b"\x01\x00\x00\xd4",
    alignment=4,
    number=8,
    arguments=(0, 1, 2, 3, 4, 5),
    result=0,
    stack=31,
    counter=32,
    vector_state=(_NT_ARM_SVE,),
    userfaultfd=282,
    close=57,
    # pselect6, ppoll, waitid, futex, nanosleep, clock_nanosleep, rt_sigsuspend, wait4
    restarted=frozenset({72, 73, 95, 98, 101, 115, 133, 260}),
    # io_getevents, epoll_pwait, read, rt_sigtimedwait, semtimedop, semop, accept, recvfrom, recvmsg,
    # accept4, io_pgetevents, io_uring_enter, epoll_pwait2
    repeatable=frozenset({4, 22, 63, 137, 192, 193, 202, 207, 212, 242, 292, 426, 441}),
)

Architecture = X86 | Arm64


def architecture() -> Architecture | None:
    """Return what is known of this machine; None if it is neither x86-64 nor arm64."""
    known: dict[str, Architecture] = {"x86_64": _X86_64, "aarch64": _ARM64}
    return known.get(platform.machine())


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
