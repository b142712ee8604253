"""Runs in parallel processes; if one dies, the others continue."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from ksmcluster.experiments.sweeps.plan import Task
from ksmcluster.experiments.sweeps.run_one import RunRecord, failed, run_one

if TYPE_CHECKING:
    from actors.simulation.actor_pool import ActorPool

_DIED = "its process was killed; if memory ran out, lower --jobs or the memory of the point"
#: For a worker on Ray: the actors that carry out its runs, one after another.
_pool: ActorPool | None = None


class Cluster(NamedTuple):
    """The Ray cluster that workers join."""

    address: str
    connect_timeout: float


class _Worker:
    """A process that carries out one run after another. If it dies, the next run gets a new one.

    On Ray it has its own actors. `shift` says where they begin, as in `machine_of_actors`.
    """

    def __init__(self, cluster: Cluster | None, shift: float) -> None:
        self._cluster, self._shift = cluster, shift
        self._executor: ProcessPoolExecutor | None = None
        self.pid: int | None = None

    def run(self, task: Task) -> RunRecord:
        """Carry out a run. If the process dies, the outcome is an error."""
        try:
            if self._executor is None:
                # Only this process handles Ctrl-C, even while the new one starts: that one inherits the mask.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                # Not forked: this process may have threads, and memory that must not be copied.
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(1, context, initializer=_begin)
                self.pid = self._executor.submit(os.getpid).result()
            return self._executor.submit(_run, task, self._cluster, self._shift).result()
        except BrokenProcessPool:
            self._executor, self.pid = None, None
            return failed(task.key, _DIED)

    def kill(self) -> None:
        """Kill the process at once."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process once it is idle."""
        if self._executor is not None:
            self._executor.shutdown()


def _start_resource_tracker() -> None:
    """Start the process that counts locks with SIGHUP blocked, as it is with SIGINT and SIGTERM.

    A terminal that closes sends the signal to the whole group. Without the process, others warn at their end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_side_by_side(tasks: Sequence[Task], jobs: int, cluster: Cluster | None = None) -> Iterator[RunRecord]:
    """Yield the record of each run as soon as it is finished; `jobs` runs are active at a time."""
    _start_resource_tracker()
    count = min(jobs, len(tasks))
    workers = [_Worker(cluster, number / count) for number in range(count)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(task: Task) -> RunRecord:
        worker = idle.get()
        try:
            return worker.run(task)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(len(workers))
    futures: list[Future[RunRecord]] = [threads.submit(run, task) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        for worker in workers:
            worker.kill()
        raise
    finally:
        threads.shutdown()
        for worker in workers:
            worker.close()


def _run(task: Task, cluster: Cluster | None, shift: float) -> RunRecord:
    """Carry out a run in this process, which joins the cluster for its first run and leaves when it ends."""
    global _pool
    if cluster is not None and _pool is None:
        from actors.runtime import environment, join

        environment()
        from actors.own_ray import on_loopback
        from actors.simulation.actor_pool import ActorPool

        # Our own Ray uses loopback; without this, Ray would use the address of this machine.
        with on_loopback() if cluster.address.startswith("127.") else nullcontext():
            join(cluster.address, cluster.connect_timeout)
        # Ray's handler would end the process with a stack dump.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _pool = ActorPool(shift)
    return run_one(task, _pool)


def _begin() -> None:
    """Let this process end with its parent, even if the parent is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
