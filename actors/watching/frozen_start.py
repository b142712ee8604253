"""What lets a Ray of our own go on that is stopped as it starts, or else ends this process.

Once Ray runs, a frozen process is killed, and the run begins again. As Ray starts, that cannot be: ray.init()
waits for its raylet in C++, without a limit, and ends this process if the raylet is killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from actors.watching.own_processes import OwnProcesses
from actors.watching.processes import FrozenProcesses

#: Seconds from one look to the next. Ray waits for a raylet that it cannot reach for ten seconds or more.
_PERIOD = 0.25


@contextmanager
def watched_start(folder: str, stall: float) -> Iterator[None]:
    """Tell processes of Ray that are stopped inside (SIGSTOP) to go on.

    If one does nothing for `stall` seconds, end this process with exit code 1 and a line. `folder` is Ray's,
    and in the command lines of its processes.
    """
    over = Event()
    Thread(target=_watch, args=(folder, stall, over), name="start of Ray", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(folder: str, stall: float, over: Event) -> None:
    own, frozen = OwnProcesses(folder), FrozenProcesses(round(stall / _PERIOD))
    while not over.wait(_PERIOD):
        processes = own.refresh()
        for one in processes:
            if one.state == "T":
                one.send(signal.SIGCONT)
        if frozen.look(processes) and not over.is_set():
            print(
                f"error: Ray did not start: a process of it did nothing for {stall:g} s; start "
                "again, or resume from the last checkpoint if there is one",
                file=sys.stderr,
                flush=True,
            )
            own.kill()
            os._exit(1)
