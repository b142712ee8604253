"""Writes tracked in real processes, which must go on as if nothing had been."""

import errno
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from ksmcluster.capture.tracing import PtraceWrites, can_trace, ptrace

pytestmark = pytest.mark.skipif(bool(can_trace()), reason=can_trace() or "")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PAGE = mmap.PAGESIZE
PATIENCE_SECONDS = 60.0

PRELUDE = """
import ctypes, errno, mmap, os, select, signal, socket, struct, sys, threading, time
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)

def region(pages, align=PAGE, huge=False):
    memory = mmap.mmap(-1, pages * PAGE + align, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = (-address) % align
    return memoryview(memory)[first:first + pages * PAGE], (address + first) // PAGE

def write(memory, *pages):
    for page in pages:
        memory[page * PAGE] = 7

def say(*words):
    print(*words, flush=True)
"""


class Target:
    """A process that runs a Python text, spoken to by lines."""

    def __init__(self, text: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + text, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what was heard is what select(2) does not tell of any more
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_spoken(self, seconds: float = 0.0) -> bool:
        """Whether there is something to hear, now or in that time."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def hear(self) -> str:
        """Return the next line of the process; empty if it has ended."""
        assert self.has_spoken(PATIENCE_SECONDS)
        assert self.process.stdout
        return self.process.stdout.readline().decode().rstrip("\n")

    def tell(self, line: str = "") -> str:
        """Send a line and return the answer."""
        self.send(line)
        return self.hear()

    def send(self, line: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def fact(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def descriptors(self) -> list[Path]:
        return sorted(Path(f"/proc/{self.pid}/fd").iterdir())

    def signal_mask(self) -> str:
        return next(line for line in self.fact("status").splitlines() if line.startswith("SigBlk"))

    def is_as_before(self) -> bool:
        """Whether nothing of a tracker is left in the process."""
        descriptors = [str(entry.readlink()) for entry in self.descriptors()]
        flags = [line.split()[1:] for line in self.fact("smaps").splitlines() if line.startswith("VmFlags")]
        status = self.fact("status")
        return (
            "anon_inode:[userfaultfd]" not in descriptors
            and not any("uw" in words for words in flags)
            and "TracerPid:\t0\n" in status
        )


Start = Callable[..., Target]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start targets that end with the test."""
    targets: list[Target] = []

    def begin(text: str, *arguments: str) -> Target:
        targets.append(Target(text, *arguments))
        return targets[-1]

    yield begin
    for target in reversed(targets):  # a debugger ends before what it traces
        target.process.kill()
        target.process.communicate()


class Pages(NamedTuple):
    """Page numbers, as a listing has them."""

    vpn: NDArray[np.int64]


def pages(first: int, count: int) -> Pages:
    return Pages(np.arange(first, first + count))


def written(tracker: PtraceWrites, target: Target, first: int, count: int) -> list[int]:
    """Return which of the pages from `first` on were written since the last call."""
    return np.flatnonzero(tracker.written(target, pages(first, count))).tolist()


@pytest.fixture
def track() -> Iterator[Callable[..., PtraceWrites]]:
    """Open trackers that are closed with the test."""
    trackers: list[PtraceWrites] = []

    def begin(*targets: Target) -> PtraceWrites:
        trackers.append(PtraceWrites([target.pid for target in targets]))
        return trackers[-1]

    yield begin
    for tracker in trackers:
        tracker.close()


Track = Callable[..., PtraceWrites]

WRITER = """
memory, vpn = region(64)
write(memory, *range(32))
say(vpn)
for line in sys.stdin:
    answer = "done"
    exec(line)
    say(answer)
"""
"""Executes lines and answers each."""


def until(condition: Callable[[], object]) -> None:
    """Wait for what happens at last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_pages_written_with_the_same_bytes(start: Start, track: Track) -> None:
    target = start(WRITER)
    first = int(target.hear())
    tracker = track(target)
    assert written(tracker, target, first, 64) == []
    target.tell("write(memory, 3, 4, 31)")
    assert written(tracker, target, first, 64) == [3, 4, 31]
    assert written(tracker, target, first, 64) == []
    target.tell("memory[5 * PAGE]")
    assert written(tracker, target, first, 64) == []
    target.tell("write(memory, 31, 40)")
    assert written(tracker, target, first, 64) == [31, 40]
    assert tracker.skipped == ()


def test_a_listing_need_not_name_all_pages(start: Start, track: Track) -> None:
    target = start(WRITER)
    first = int(target.hear())
    tracker = track(target)
    target.tell("write(memory, *range(10))")
    listed = Pages(np.array([first + 1, first + 7, first + 12]))
    assert tracker.written(target, listed).tolist() == [True, True, False]
    target.tell("write(memory, 1)")
    assert tracker.written(target, Pages(np.empty(0, np.int64))).tolist() == []


def test_several_processes(start: Start, track: Track) -> None:
    one, two = start(WRITER), start(WRITER)
    first, second = int(one.hear()), int(two.hear())
    tracker = track(one, two)
    assert tracker.pauses.stops == 2
    assert 0 < tracker.pauses.longest_ms < tracker.pauses.total_ms
    one.tell("write(memory, 1)")
    two.tell("write(memory, 2)")
    assert written(tracker, one, first, 64) == [1]
    assert written(tracker, two, second, 64) == [2]
    assert tracker.pauses.stops == 2


def test_writes_of_the_kernel(start: Start, track: Track) -> None:
    """Data that read(2) puts into a protected page: no fault of user mode, so no EFAULT either."""
    target = start(WRITER)
    first = int(target.hear())
    tracker = track(target)
    target.tell("file = open('/proc/self/exe', 'rb', 0); assert file.readinto(memory[:2 * PAGE]) == 2 * PAGE")
    assert written(tracker, target, first, 64) == [0, 1]


def test_threads(start: Start, track: Track) -> None:
    target = start("""
memory, vpn = region(8)
write(memory, *range(8))
go = [threading.Event() for _ in range(4)]
done = [threading.Event() for _ in range(4)]

def run(number):
    while True:
        go[number].wait()
        go[number].clear()
        write(memory, 2 * number)
        done[number].set()

for number in range(4):
    threading.Thread(target=run, args=(number,), daemon=True).start()
say(vpn)
for line in sys.stdin:
    for number in map(int, line.split()):
        go[number].set()
        done[number].wait()
        done[number].clear()
    say("done")
""")
    first = int(target.hear())
    tracker = track(target)
    target.tell("0 3")
    assert written(tracker, target, first, 8) == [0, 6]
    target.tell("1 2")
    assert written(tracker, target, first, 8) == [2, 4]


def test_memory_mapped_later(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    tracker = track(target)
    at = int(target.tell("later, answer = region(16); write(later, 0, 1)"))
    assert written(tracker, target, at, 16) == [0, 1]
    target.tell("write(later, 1, 5)")
    assert written(tracker, target, at, 16) == [1, 5]
    assert tracker.pauses.stops == 1


def test_memory_mapped_anew_in_the_same_place(start: Start, track: Track) -> None:
    target = start(WRITER + "\n")
    first = int(target.hear())
    tracker = track(target)
    target.tell(
        "fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10;"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long];"
        "libc.mmap(vpn * PAGE, 64 * PAGE, 3, fixed, -1, 0);"
        "write(memory, 2)"
    )
    assert written(tracker, target, first, 64) == [2]
    target.tell("write(memory, 2, 8)")
    assert written(tracker, target, first, 64) == [2, 8]


def test_memory_that_is_moved(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    target.tell(
        "libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p; none = ctypes.c_void_p(None);"
        "size = ctypes.c_size_t(8 * PAGE); old = libc.mmap(none, size, 3, 0x22, -1, ctypes.c_long(0));"
        "place = libc.mmap(none, size, 3, 0x22, -1, ctypes.c_long(0));"
        "ctypes.memset(old, 7, 8 * PAGE)"
    )
    tracker = track(target)
    first = int(
        target.tell(
            "new = libc.mremap(ctypes.c_void_p(old), size, size, 3, ctypes.c_void_p(place));"
            "ctypes.memset(new + 2 * PAGE, 7, 1); answer = new // PAGE"
        )
    )
    assert 2 in written(tracker, target, first, 8)
    target.tell("ctypes.memset(new + 5 * PAGE, 7, 1)")
    assert written(tracker, target, first, 8) == [5]


def test_reserved_memory(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    target.tell("big = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)")
    at = int(target.tell("answer = ctypes.addressof(ctypes.c_char.from_buffer(big)) // PAGE"))
    tracker = track(target)
    target.tell("big[1 << 39] = 7; big[(1 << 40) - 1] = 7")
    listed = Pages(np.array([at, at + (1 << 27), at + (1 << 28) - 1]))
    assert tracker.written(target, listed).tolist() == [False, True, True]


def test_huge_pages_that_are_written_are_told_by_the_page(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    first = int(target.tell("huge, answer = region(1024, 1 << 21, True); write(huge, *range(1024))"))
    if not any(int(line.split()[1]) for line in target.fact("smaps").splitlines() if "AnonHuge" in line):
        pytest.skip("no transparent huge page was given")
    tracker = track(target)
    assert written(tracker, target, first, 1024) == []
    target.tell("write(huge, 5, 1000)")
    assert written(tracker, target, first, 1024) == [5, 1000]


def test_huge_pages_that_are_new_are_told_as_a_whole(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    first = int(target.tell("huge, answer = region(1024, 1 << 21, True)"))
    tracker = track(target)
    target.tell("write(huge, 5)")
    if not any(int(line.split()[1]) for line in target.fact("smaps").splitlines() if "AnonHuge" in line):
        pytest.skip("no transparent huge page was given")
    assert written(tracker, target, first, 1024) == list(range(512))


def test_a_forked_child_is_tracked_from_its_first_moment_on(start: Start, track: Track) -> None:
    target = start("""
memory, vpn = region(8)
write(memory, *range(8))
wake, waker = os.pipe()
done, doer = os.pipe()
say(vpn)
sys.stdin.readline()
child = os.fork()
if not child:
    while os.read(wake, 1):
        write(memory, 6)
        os.write(doer, b"x")
    os._exit(0)
say(child)
for line in sys.stdin:
    os.write(waker, b"x")
    os.read(done, 1)
    write(memory, 1)
    say("done")
""")
    first = int(target.hear())
    tracker = track(target)
    child = Child(int(target.tell()))
    try:
        tracker.written(child, pages(first, 8))
        assert tracker.pauses.stops == 2
        target.tell()
        assert tracker.written(child, pages(first, 8)).nonzero()[0].tolist() == [6]
        assert written(tracker, target, first, 8) == [1]
    finally:
        os.kill(child.pid, signal.SIGKILL)


class Child(NamedTuple):
    pid: int


def test_a_program_that_executes_another_one(start: Start, track: Track) -> None:
    target = start(
        "say('ready'); sys.stdin.readline(); os.execv(sys.executable, ['python', '-c', sys.argv[1]])",
        PRELUDE + WRITER,
    )
    target.hear()
    tracker = track(target)
    first = int(target.tell())
    tracker.written(target, pages(first, 64))
    assert tracker.pauses.stops == 2
    target.tell("write(memory, 9)")
    assert written(tracker, target, first, 64) == [9]
    tracker.close()
    assert target.is_as_before()


def test_a_program_that_is_executed_just_before_the_stop(
    start: Start, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system call instruction was found in the memory of the program before, and is there no more."""
    target = start(WRITER)
    first = int(target.hear())
    found = [0x1000]
    right = ptrace.find_instruction
    monkeypatch.setattr(
        ptrace, "find_instruction", lambda *process: found.pop() if found else right(*process)
    )
    tracker = track(target)
    assert not found
    tracker.written(target, pages(first, 64))
    target.tell("write(memory, 9)")
    assert written(tracker, target, first, 64) == [9]
    tracker.close()
    assert target.is_as_before()


def test_a_process_that_ends(start: Start, track: Track) -> None:
    target = start(WRITER)
    first = int(target.hear())
    tracker = track(target)
    target.process.kill()
    until(lambda: target.fact("stat").rpartition(")")[2].split()[0] == "Z")
    assert written(tracker, target, first, 64) == []
    assert target.process.wait() == -signal.SIGKILL
    assert written(tracker, target, first, 64) == []
    assert tracker.skipped == ()
    tracker.close()
    tracker.close()
    assert PtraceWrites([target.pid]).skipped == ()


def test_a_process_that_ends_while_it_is_stopped_keeps_its_exit_code(start: Start) -> None:
    for _ in range(5):
        target = start("say('ready'); sys.stdin.readline(); sys.exit(7)")
        target.hear()
        target.send()
        while target.process.poll() is None:
            PtraceWrites([target.pid]).close()
        assert target.process.returncode == 7


OWN_USERFAULTFD = """
number = 323 if os.uname().machine == "x86_64" else 282
uffd = libc.syscall(number, os.O_CLOEXEC | 1)
import fcntl
fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("=3Q", 0xAA, 1 << 15 | 1 << 13, 0))
own, vpn = region(8)
write(own, *range(8))
fcntl.ioctl(uffd, 0xC020AA00, struct.pack("=4Q", vpn * PAGE, 8 * PAGE, 2, 0))
fcntl.ioctl(uffd, 0xC018AA06, struct.pack("=3Q", vpn * PAGE, 8 * PAGE, 1))
say(vpn)

def own_written():
    vector = (ctypes.c_uint64 * 24)()
    with open("/proc/self/pagemap", "rb", 0) as pagemap:
        count = fcntl.ioctl(pagemap, 0xC0606610, bytearray(struct.pack(
            "=12Q", 96, 0, vpn * PAGE, (vpn + 8) * PAGE, 0, ctypes.addressof(vector), 8, 0, 0, 2, 0, 2)))
    return [(vector[3 * at] // PAGE - vpn, vector[3 * at + 1] // PAGE - vpn) for at in range(count)]
"""


def test_a_program_with_a_userfaultfd_of_its_own(start: Start, track: Track) -> None:
    target = start(OWN_USERFAULTFD + WRITER)
    own, first = int(target.hear()), int(target.hear())
    tracker = track(target)
    (skipped,) = tracker.skipped
    assert skipped == (
        target.pid,
        own,
        own + 8,
        "the program has registered it with its own userfaultfd",
    )
    target.tell("write(own, 3); write(memory, 4)")
    assert written(tracker, target, first, 64) == [4]
    assert written(tracker, target, own, 8) == []
    assert tracker.skipped == (skipped,)
    assert target.tell(f"vpn = {own}; answer = own_written()") == "[(3, 4)]"
    tracker.close()
    target.tell("write(own, 5)")
    assert target.tell("answer = own_written()") == "[(3, 4), (5, 6)]"


def test_everything_is_undone(start: Start, track: Track) -> None:
    target = start(WRITER)
    target.hear()
    names = target.descriptors()
    mask, maps = target.signal_mask(), target.fact("maps")
    tracker = track(target)
    assert not target.is_as_before()
    assert target.descriptors() == names
    tracker.close()
    assert target.is_as_before()
    assert (target.signal_mask(), target.fact("maps")) == (mask, maps)
    assert target.tell("write(memory, 1)") == "done"


TRACER = """
import sys, time
from ksmcluster.capture.tracing import PtraceWrites
tracker = PtraceWrites([int(sys.argv[1])])
print(tracker.pauses.stops, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_everything_is_undone_when_the_tracer_is_ended(start: Start, number: signal.Signals) -> None:
    target = start(WRITER)
    target.hear()
    with subprocess.Popen(
        [sys.executable, "-c", TRACER, str(target.pid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tracer:
        assert tracer.stdout
        assert tracer.stdout.readline() == b"1\n"
        assert not target.is_as_before()
        tracer.send_signal(number)
        assert tracer.wait() != 0
    assert target.is_as_before()
    assert target.tell("write(memory, 1)") == "done"


KILLED_TRACERS = """
import os, signal, sys, threading, time
from ksmcluster.capture.tracing import PtraceWrites

for number in range(40):
    tracer = os.fork()
    if not tracer:  # a signal may come to any thread
        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
    while not tracer:
        PtraceWrites([int(sys.argv[1])]).close()
    time.sleep(0.002 + 0.0003 * number)
    os.kill(tracer, signal.SIGTERM)
    assert os.waitpid(tracer, 0)[1] == signal.SIGTERM
"""


def test_tracers_that_are_ended_while_the_process_is_stopped(start: Start) -> None:
    """No handler of their own is there: the signal waits until the process goes on."""
    target = start(WRITER)
    target.hear()
    subprocess.run([sys.executable, "-c", KILLED_TRACERS, str(target.pid)], check=True)
    assert target.tell("write(memory, 1)") == "done"
    assert target.is_as_before()


INTERRUPTED_TRACER = """
import signal, sys
from ksmcluster.capture.tracing import PtraceWrites

def end(*_):
    raise SystemExit

signal.signal(signal.SIGTERM, end)
for number in range(40):
    try:
        print(number, flush=True)
        while True:
            tracker = PtraceWrites([int(sys.argv[1])])
            assert not tracker.skipped, tracker.skipped
            tracker.close()
    except (KeyboardInterrupt, SystemExit):
        pass
"""


def test_interruptions_while_the_process_is_stopped(start: Start) -> None:
    target = start("""
say("ready")
while True:
    assert sum(range(10000)) == 49995000
    if select.select([0], [], [], 0)[0]:
        sys.stdin.readline()
        say("well")
""")
    target.hear()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_TRACER, str(target.pid)], stdout=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stdout
        assert tracer.stdout.readline() == "0\n"
        for number in range(40):
            time.sleep(0.0007 * (number % 7))  # any point of the loop
            tracer.send_signal(signal.SIGINT if number % 2 else signal.SIGTERM)
            # Python swallows what a handler raises in a destructor or a weakref's callback.
            while not select.select([tracer.stdout], [], [], 5)[0]:
                tracer.send_signal(signal.SIGTERM)
            assert tracer.stdout.readline() == (f"{number + 1}\n" if number < 39 else "")
        assert tracer.wait() == 0
    assert target.tell() == "well"
    assert target.is_as_before()


def again(target: Target, times: int = 3) -> None:
    """Stop the process several times."""
    for _ in range(times):
        tracker = PtraceWrites([target.pid])
        assert (tracker.skipped, tracker.pauses.stops) == ((), 1)
        tracker.close()


def waits(target: Target) -> bool:
    """Whether its only thread waits in a system call."""
    call, state = target.fact("syscall"), target.fact("stat").rpartition(")")[2].split()[0]
    return state == "S" and call.split()[0].isdigit()


BLOCKED = """
import resource
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
short, word = struct.pack("qq", 0, 500_000_000), ctypes.c_int(0)
one, other = socket.socketpair()
listening = socket.create_server(("127.0.0.1", 0))
epoll = select.epoll()
epoll.register(0, select.EPOLLIN)
usr2 = ctypes.c_ulong(1 << signal.SIGUSR2 - 1)
futex = 202 if os.uname().machine == "x86_64" else 98
buffer = ctypes.create_string_buffer(4096)
say("ready")
ctypes.set_errno(0)
result = eval(sys.argv[1])
say(result, errno.errorcode.get(ctypes.get_errno(), 0))
"""
SHORT_WAITS = {
    "nanosleep": ("libc.nanosleep(short, None)", "0 0"),
    "clock_nanosleep": ("libc.clock_nanosleep(1, 0, short, None)", "0 0"),
    "futex": ("libc.syscall(futex, ctypes.byref(word), 0, 0, short, None, 0)", "-1 ETIMEDOUT"),
    "poll": ("libc.poll(ctypes.create_string_buffer(struct.pack('ihh', 0, 1, 0)), 1, 500)", "0 0"),
    "select": (
        "libc.select(0, None, None, None, ctypes.create_string_buffer(struct.pack('qq', 0, 500_000)))",
        "0 0",
    ),
}


@pytest.mark.parametrize("call", SHORT_WAITS)
def test_a_wait_ends_in_time_however_often_it_is_interrupted(start: Start, call: str) -> None:
    """A wait that began anew each time would never end."""
    expression, result = SHORT_WAITS[call]
    target = start(BLOCKED, expression)
    assert target.hear() == "ready"
    until(lambda: waits(target))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not target.has_spoken():
        assert time.monotonic() < deadline
        PtraceWrites([target.pid]).close()
    assert target.hear() == result


LONG_WAITS = {
    "read": ("libc.read(0, buffer, 100)", "2 0"),
    "poll": ("libc.poll(ctypes.create_string_buffer(struct.pack('ihh', 0, 1, 0)), 1, -1)", "1 0"),
    "poll with a limit": (
        "libc.poll(ctypes.create_string_buffer(struct.pack('ihh', 0, 1, 0)), 1, 100_000)",
        "1 0",
    ),
    "epoll_wait": ("libc.epoll_wait(epoll.fileno(), buffer, 9, -1)", "1 0"),
    "epoll_wait with a limit": ("libc.epoll_wait(epoll.fileno(), buffer, 9, 100_000)", "1 0"),
    "epoll_pwait": ("libc.epoll_pwait(epoll.fileno(), buffer, 9, -1, ctypes.byref(usr2))", "1 0"),
}


@pytest.mark.parametrize("call", LONG_WAITS)
def test_a_wait_ends_with_what_it_waits_for(start: Start, call: str) -> None:
    expression, result = LONG_WAITS[call]
    target = start(BLOCKED, expression)
    assert target.hear() == "ready"
    until(lambda: waits(target))
    again(target)
    until(lambda: waits(target))
    assert target.tell("x") == result


def test_a_wait_that_is_repeated_with_its_limit(start: Start) -> None:
    target = start(BLOCKED, "libc.epoll_wait(epoll.fileno(), buffer, 9, 300)")
    assert target.hear() == "ready"
    until(lambda: waits(target))
    again(target, 1)
    assert target.hear() == "0 0"


def test_receiving_and_accepting(start: Start) -> None:
    target = start(
        BLOCKED + "say(libc.accept(listening.fileno(), None, None) > 0)", "say(listening.getsockname()[1])"
    )
    assert target.hear() == "ready"
    port = int(target.hear())
    target.hear()
    until(lambda: waits(target))
    again(target)
    with socket.create_connection(("127.0.0.1", port)):
        assert target.hear() == "True"


SIGNALS = {
    "pause": ("libc.pause()", signal.SIGUSR1, "-1 EINTR"),
    "read": ("libc.read(0, buffer, 100)", signal.SIGUSR1, "-1 EINTR"),
    "nanosleep": ("libc.nanosleep(struct.pack('qq', 1000, 0), None)", signal.SIGUSR1, "-1 EINTR"),
    "epoll_wait": ("libc.epoll_wait(epoll.fileno(), buffer, 9, -1)", signal.SIGUSR1, "-1 EINTR"),
    "sigwaitinfo": ("libc.sigwaitinfo(ctypes.byref(usr2), None)", signal.SIGUSR2, f"{signal.SIGUSR2:d} 0"),
    "sigsuspend": ("libc.sigsuspend(ctypes.byref(usr2))", signal.SIGUSR1, "-1 EINTR"),
}


@pytest.mark.parametrize("call", SIGNALS)
def test_a_wait_is_ended_by_a_signal_afterwards(start: Start, call: str) -> None:
    expression, number, result = SIGNALS[call]
    target = start(BLOCKED, expression)
    assert target.hear() == "ready"
    until(lambda: waits(target))
    again(target)
    until(lambda: waits(target))
    os.kill(target.pid, number)
    assert target.hear() == result


def test_futexes_of_threads(start: Start) -> None:
    """Each thread waits for another one, forever."""
    target = start("""
locks = [threading.Lock() for _ in range(4)]
for lock in locks:
    lock.acquire()

def run(number):
    locks[number].acquire()
    locks[number + 1].release() if number < 3 else say("all")

threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
say("ready")
sys.stdin.readline()
locks[0].release()
""")
    target.hear()
    again(target)
    assert target.tell() == "all"
    assert target.process.wait() == 0


def test_a_stopped_process_stays_stopped(start: Start, track: Track) -> None:
    target = start(WRITER)
    first = int(target.hear())
    target.process.send_signal(signal.SIGSTOP)

    def is_stopped() -> bool:
        return target.fact("stat").rpartition(")")[2].split()[0] == "T"

    until(is_stopped)
    tracker = track(target)
    assert tracker.skipped == ()
    until(is_stopped)
    target.process.send_signal(signal.SIGCONT)
    target.tell("write(memory, 2)")
    assert written(tracker, target, first, 64) == [2]


def test_a_program_that_computes_and_handles_signals(start: Start) -> None:
    """Registers, also those of vectors, and signals are as they would be."""
    target = start("""
import hashlib
signals = 0

def count(*_):
    global signals
    signals += 1

signal.signal(signal.SIGALRM, count)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
data = bytes(range(256)) * 256
digest = hashlib.sha256(data).hexdigest()
say("ready")
rounds = 0
while not select.select([0], [], [], 0)[0]:
    assert hashlib.sha256(data).hexdigest() == digest
    assert sum(value * value for value in map(float, range(500))) == 41541750.0
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
say(rounds > 10, signals > 10)
""")
    target.hear()
    again(target, 100)
    assert target.tell() == "True True"
    assert target.process.wait() == 0


@as_root
def test_a_process_of_another_user(start: Start, track: Track) -> None:
    target = start("os.setgid(65534); os.setuid(65534)\n" + WRITER)
    first = int(target.hear())
    tracker = track(target)
    target.tell("write(memory, 3)")
    assert written(tracker, target, first, 64) == [3]


@as_root
def test_a_process_with_a_seccomp_filter(start: Start, track: Track) -> None:
    """It would be killed for the system call; the filter is suspended, and afterwards there again."""
    target = start(
        """
number = 323 if os.uname().machine == "x86_64" else 282
program = b"".join(struct.pack("=HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7FFF0000)))
code = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter) == 0
"""
        + WRITER
    )
    first = int(target.hear())
    tracker = track(target)
    assert tracker.skipped == ()
    target.tell("write(memory, 3)")
    assert written(tracker, target, first, 64) == [3]
    assert target.tell("libc.syscall(number, 1)") == ""
    assert target.process.wait() == -signal.SIGSYS


def test_a_process_that_is_traced_already(start: Start, track: Track) -> None:
    target = start(WRITER)
    first = int(target.hear())
    debugger = start(
        "libc.ptrace(0x4206, int(sys.argv[1]), None, None); say('ready'); sys.stdin.readline()",
        str(target.pid),
    )
    debugger.hear()
    tracker = track(target)
    assert tracker.skipped == ((target.pid, None, None, "another program traces it (a debugger or strace)"),)
    target.tell("write(memory, 3)")
    assert written(tracker, target, first, 64) == []


def test_a_process_without_a_free_descriptor(start: Start, track: Track) -> None:
    target = start("import resource\n" + WRITER)
    target.hear()
    target.tell("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))")
    assert track(target).skipped == ((target.pid, None, None, os.strerror(errno.EMFILE)),)
    assert target.tell() == "done"


@as_root
def test_without_permission(start: Start) -> None:
    target = start(WRITER)
    target.hear()
    text = (
        "import os, sys; from ksmcluster.capture.tracing import PtraceWrites; os.setuid(65534);"
        "print(PtraceWrites([int(sys.argv[1])]).skipped[0].reason)"
    )
    found = subprocess.run(
        [sys.executable, "-c", text, str(target.pid)], capture_output=True, text=True, check=True
    )
    assert found.stdout == "no permission to trace it: run as root (CAP_SYS_PTRACE)\n"
