"""Selects processes to capture: by PID, with descendants, by control group or name, or all users of KSM."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import ksm_users, parent_of, running, text

ALL_ENDED = "every process ended before its memory was captured: capture one that runs longer"
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Live processes to capture."""

    single: tuple[int, ...] = ()
    trees: tuple[int, ...] = ()
    """Processes with all their descendants."""
    cgroups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    ksm_users: bool = False

    @property
    def anything(self) -> bool:
        """Return whether any live process is wanted."""
        return bool(self.single or self.follows)

    @property
    def follows(self) -> bool:
        """Return whether more processes may appear later."""
        return bool(self.trees or self.cgroups or self.names or self.ksm_users)

    def pids(self) -> list[int]:
        """Return the current PIDs: first those given, in that order, then the others, ascending.

        Raises UserError if a named process or control group does not exist, or if nothing is found.
        """
        others = [
            *(pid for root in self.trees for pid in tree(root)),
            *(pid for path in self.cgroups for pid in in_cgroup(path)),
            *(pid for pattern in self.names for pid in named(pattern)),
            *(ksm_users() if self.ksm_users else ()),
        ]
        own = {os.getpid()} - set(self.single)
        found = [*self.single, *sorted({*others} - own - {*self.single})]
        found = [pid for pid in found if pid in self.single or not _is_kernel_thread(pid)]
        if not found and self.follows:
            raise UserError(self._nothing())
        return found

    def _nothing(self) -> str:
        """Say why there is nothing to capture."""
        asked = {"the name": self.names, "the control group": self.cgroups, "the use of KSM": self.ksm_users}
        if ways := [what for what, given in asked.items() if given]:
            return f"no process matches: check {' and '.join(ways)}"
        return ALL_ENDED


@contextmanager
def running_command(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and end it after the block if it still runs; its children are left to it.

    Raises UserError if it cannot be started.
    """
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"{command[0]} cannot be started: {reason}; check the command after --") from error
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _is_kernel_thread(pid: int) -> bool:
    return not text(pid, "maps")


def tree(root: int) -> list[int]:
    """Return a process and its descendants, ascending. Raises UserError if there is no such process."""
    pids = running()
    children = defaultdict(list)
    for pid in pids:
        children[parent_of(pid)].append(pid)
    if root not in pids:
        raise UserError(f"there is no process {root}: check the PID with ps")
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children[pid]
    return sorted(found)


def in_cgroup(path: str) -> list[int]:
    """Return the processes of a control group (v2) and the groups below it, ascending.

    `path` is that of its folder, or as in /proc/PID/cgroup. Raises UserError if there is no such group.
    """
    for folder in (Path(path), _CGROUPS / path.lstrip("/")):
        if (folder / "cgroup.procs").is_file():
            files = [folder / "cgroup.procs", *folder.glob("**/cgroup.procs")]
            return sorted({int(pid) for file in files for pid in file.read_text().split()})
    raise UserError(f"there is no control group {path}: name a folder below {_CGROUPS}")


def named(pattern: str) -> list[int]:
    """Return the processes whose command name matches a shell pattern, ascending, without this one."""
    others = (pid for pid in running() if pid != os.getpid())
    return [pid for pid in others if fnmatchcase(text(pid, "comm").strip(), pattern)]
