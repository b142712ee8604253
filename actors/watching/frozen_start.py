"""What lets a Ray of our own go on that freezes as it starts, or else ends this process.

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

#: Seconds from one look to the next, and looks after which a frozen process is told to go on: Ray gives up
#: after half a minute.
_PERIOD, _LOOKS = 1.0, 8


@contextmanager
def watched_start(folder: str, stall: float) -> Iterator[None]:
    """Tell processes of Ray that freeze inside to go on.

    If one does nothing for `stall` seconds more, end this process with exit code 1 and a line. `folder` is
    Ray's, and in the command lines of its processes.
    """
    over = Event()
    Thread(target=_watch, args=(folder, stall, over), name="start of Ray", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(folder: str, stall: float, over: Event) -> None:
    own = OwnProcesses(folder)
    frozen, lost = FrozenProcesses(_LOOKS), FrozenProcesses(_LOOKS + round(stall / _PERIOD))
    while not over.wait(_PERIOD):
        processes = own.refresh()
        for one in frozen.look(processes):
            one.send(signal.SIGCONT)
        if lost.look(processes) and not over.is_set():
            print(
                f"error: Ray did not start: a process of it did nothing for {_LOOKS + stall:g} s; start "
                "again, or resume from the last checkpoint if there is one",
                file=sys.stderr,
                flush=True,
            )
            own.kill()
            os._exit(1)
