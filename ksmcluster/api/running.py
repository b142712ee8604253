"""Shared by all runs: timing, the memory check of this host, and errors in one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.placement import node_blocks
from actors.run_options import RunOptions
from cluster.machine.pass_result import Event
from cluster.spec.errors import LostError, SimulationError
from ksmcluster.results.timing import Timing
from ksmcluster.system import host_memory
from ksmcluster.system.errors import RunFailedError, UserError

Progress = Callable[[Event], None]


class RunClock:
    """Measures a run from now on; its start-up ends at the first event that `is_started` accepts."""

    def __init__(self, progress: Progress | None, is_started: Callable[[Event], bool]) -> None:
        self._progress = progress
        self._is_started = is_started
        self._start = self._started = time.perf_counter()

    def on_event(self, event: Event) -> None:
        if self._is_started(event):
            self._started = time.perf_counter()
        if self._progress:
            self._progress(event)

    def timing(self, options: RunOptions) -> Timing:
        return Timing.of(options, time.perf_counter() - self._start, self._started - self._start)


def check_memory(options: RunOptions, nodes: int, pages: int, size: int, less: str) -> None:
    """Raise UserError if `size` bytes of pages do not fit into this host; skipped without `memory_check`."""
    if options.memory_check and options.cluster is None:
        actors = len(node_blocks(nodes, options.nodes_per_actor)) if options.on_ray else 0
        host_memory.check(pages, size, actors, less)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn simulation errors and MemoryError into UserError, and LostError into RunFailedError."""
    try:
        yield
    except LostError as error:
        raise RunFailedError(str(error)) from error
    except SimulationError as error:
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError("out of memory: use fewer pages, or a Ray cluster with --address") from error
