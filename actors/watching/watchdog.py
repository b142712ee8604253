"""The watchdog of a run on Ray: it kills frozen processes, and notices what of the cluster is lost.

A killed process is a death as any other: whoever waits for it gets an error, and the run goes on from its
last checkpoint. So nothing has to know how long a superstep may take.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from actors.watching.head import HEAD, first_line
from actors.watching.own_processes import OwnProcesses
from actors.watching.processes import FrozenProcesses, is_raylet

#: Looks in the time after which a process without CPU time is frozen.
LOOKS = 10
#: The longest time from one look to the next, in seconds: Ray ends this process a minute after its head.
_LONGEST_PERIOD = 5.0
#: Times that the head must not answer in a row, as a new connection may fail on a busy machine.
_SILENT = 2


class Watchdog:
    """A thread that looks at the processes of a run from time to time.

    A Ray of our own is on this machine. On a cluster that was joined, an actor on each machine looks at the
    processes of this run there. They start when the first half of the stall time is over, so that short runs
    do not wait for them. A machine that is out of reach is found by Ray itself.
    """

    def __init__(self, own: OwnProcesses | None, answers: Callable[[float], None], stall: float) -> None:
        """Take the processes of our own Ray, or None if another was joined, and the stall time in seconds.

        answers: takes a time limit in seconds; raises OSError if the head does not answer within it.
        """
        self._own = own
        self._answers = answers
        self._stall = stall
        self._period = min(stall / LOOKS, _LONGEST_PERIOD)
        self._frozen = FrozenProcesses(round(stall / self._period))
        self._watchers: dict[str, Any] = {}
        self._over = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
        HEAD.lost, HEAD.alone = "", False
        self._thread.start()

    def close(self) -> None:
        """End the thread, if it is not in a call that does not return."""
        self._over.set()
        self._thread.join(1)

    def _watch(self) -> None:
        looks = silent = 0
        while not self._over.wait(self._period):
            looks += 1
            try:
                self._answers(self._stall)
                silent = 0
            except OSError as error:
                silent += 1
                if silent == _SILENT and not self._over.is_set():
                    HEAD.lost = f"the head of the Ray cluster is lost: {first_line(error)}"
                    return
            if self._own is not None:
                found = self._own.refresh()
                HEAD.alone = not any(is_raylet(one) for one in found)
                for one in self._frozen.look(found):
                    one.kill()
            elif looks * self._period >= self._stall / 2:
                self._look_on_machines()

    def _look_on_machines(self) -> None:
        """Let each machine of the cluster kill what is frozen there."""
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):
            machines = [str(node["NodeID"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
            HEAD.alone = not machines
            self._watchers = {
                machine: self._watchers.get(machine) or self._start(machine) for machine in machines
            }
            ray.wait(
                [watcher.look.remote() for watcher in self._watchers.values()],
                num_returns=len(machines),
                timeout=self._period,
            )

    def _start(self, machine: str) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from actors.watching.watcher_actor import WatcherActor

        actor = ray.remote(num_cpus=0)(WatcherActor)
        placement = NodeAffinitySchedulingStrategy(machine, soft=False)
        return actor.options(scheduling_strategy=placement).remote(round(self._stall / self._period))
