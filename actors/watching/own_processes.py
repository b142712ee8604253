"""The processes of a Ray that this process has started, which must not outlive it."""

from __future__ import annotations

import os

from actors.watching.processes import LinuxProcess, children, descendants, is_of_ray


class OwnProcesses:
    """The head, the raylet, and all that descends from these, orphans included."""

    def __init__(self, session: str) -> None:
        """Take the directory of Ray's session, which is in the command lines of the head and the raylet."""
        self._session = session
        self._known: dict[tuple[int, int], LinuxProcess] = {}
        self.refresh()

    def refresh(self) -> list[LinuxProcess]:
        """Look at the processes again; return those of which a frozen one must be killed."""
        roots = [one for one in children().get(os.getpid(), []) if self._session in one.command()]
        found = [*roots, *descendants(one.pid for one in roots)]
        self._known |= {(one.pid, one.start): one for one in found}
        return [one for one in found if is_of_ray(one)]

    def kill(self) -> None:
        """Kill all of them that were there at any look."""
        self.refresh()
        for one in self._known.values():
            one.kill()
