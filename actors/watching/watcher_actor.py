"""The actor that looks for frozen processes on a machine of a cluster."""

from __future__ import annotations

import os
from pathlib import Path

from actors.tuning.slim_actor import end_at_once
from actors.watching.processes import FrozenProcesses, descendants, is_of_ray

#: Ray gives it to the processes of a job.
_JOB = "RAY_JOB_ID"


class WatcherActor:
    """Looks at the processes of its own job that the same raylet has started."""

    def __init__(self, looks: int) -> None:
        end_at_once()
        self._frozen = FrozenProcesses(looks)

    def look(self) -> int:
        """Kill the frozen processes; return how many there were."""
        job = f"{_JOB}={os.environ[_JOB]}".encode()
        ours = [
            one
            for one in descendants([os.getppid()])
            if one.pid != os.getpid() and is_of_ray(one) and job in _environment(one.pid)
        ]
        frozen = self._frozen.look(ours)
        for one in frozen:
            one.kill()
        return len(frozen)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
