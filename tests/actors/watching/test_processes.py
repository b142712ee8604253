"""Frozen processes are told from those that work, and killed; those of others are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import ray

from actors.watching.own_processes import OwnProcesses
from actors.watching.processes import FrozenProcesses, LinuxProcess, descendants, process
from actors.watching.watcher_actor import WatcherActor

#: Uses CPU time all the time.
BUSY = [sys.executable, "-c", "while True: pass"]


@pytest.fixture
def busy() -> Iterator[int]:
    with subprocess.Popen(BUSY) as child:
        yield child.pid
        child.kill()


def looked_at(frozen: FrozenProcesses, pid: int) -> list[LinuxProcess]:
    one = process(pid)
    assert one is not None
    return frozen.look([one])


def until_used(pid: int) -> None:
    """Wait until a process has used some more CPU time."""
    first = process(pid)
    while process(pid) == first:
        time.sleep(0.01)


def test_a_stopped_process_is_frozen_after_so_many_looks(busy: int) -> None:
    frozen = FrozenProcesses(3)
    for _ in range(10):
        until_used(busy)
        assert looked_at(frozen, busy) == []
    os.kill(busy, signal.SIGSTOP)
    while (now := process(busy)) and now.state != "T":
        time.sleep(0.01)
    looks = [bool(looked_at(frozen, busy)) for _ in range(4)]
    # It may have worked until the first of these.
    assert looks in ([False, False, False, True], [False, False, True, True])
    os.kill(busy, signal.SIGCONT)
    until_used(busy)
    assert looked_at(frozen, busy) == []


def test_a_later_process_with_the_same_number_is_not_killed(busy: int) -> None:
    one = process(busy)
    assert one is not None
    one._replace(start=one.start - 1).kill()
    assert process(busy) is not None
    one.kill()
    while process(busy) is not None:
        time.sleep(0.01)


def test_own_processes_are_those_of_the_session_and_their_descendants() -> None:
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with (
        subprocess.Popen([sys.executable, "-c", start, "/tmp/a-session"]) as ours,
        subprocess.Popen(BUSY) as other,
    ):
        while not descendants([ours.pid]):
            time.sleep(0.01)
        own = OwnProcesses("/tmp/a-session")
        (child,) = descendants([ours.pid])
        ours.kill()  # its child is an orphan now
        own.kill()
        while process(child.pid) is not None:
            time.sleep(0.01)
        assert other.poll() is None
        other.kill()


def test_the_watcher_of_a_machine_kills_what_is_frozen_there(ray_cluster: str) -> None:
    @ray.remote(num_cpus=0)
    class Asleep:
        def pid(self) -> int:
            return os.getpid()

    watcher = ray.remote(num_cpus=0)(WatcherActor).remote(40)
    here = ray.get(watcher.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    stopped, idle = (Asleep.options(scheduling_strategy=near).remote() for _ in range(2))  # type: ignore[attr-defined]
    pids = ray.get([stopped.pid.remote(), idle.pid.remote()])
    os.kill(pids[0], signal.SIGSTOP)
    # 40 looks take longer than an idle actor uses no CPU time.
    while ray.get(watcher.look.remote()) == 0:
        time.sleep(0.25)
    while process(pids[0]) is not None:
        time.sleep(0.01)
    assert ray.get(idle.pid.remote()) == pids[1]
    for actor in (watcher, stopped, idle):
        ray.kill(actor)
