"""The command as a process of its own: started, disturbed at random moments, and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from actors.watching.processes import LinuxProcess, descendants
from tests.chaos.three_machines import ThreeMachines

#: Runs by the command that they are of: `simulate` has node actors and a coordinator, `compact` has memory
#: actors, and both have migration actors.
SCENARIOS = {
    "simulate": ["ksm-compaction", "--nodes", "8", "--set", "simulation.passes={passes}"],
    "compact": [
        *("compaction-drain", "--nodes", "8", "--set", "migration.turn=256"),
        *("--set", "machine.memory_per_node={memory}MiB"),
    ],
}
#: No run takes as long, in seconds.
LIMIT = 600.0
#: The names of the actors' processes.
ACTORS = {
    "node": "ray::NodeActor",
    "memory": "ray::MemoryActor",
    "migration": "ray::MigrationActor",
    "coordinator": "ray::CoordinatorActor",
}


class Command:
    """A `ksmcluster` that runs, on a Ray of its own or on a cluster."""

    def __init__(
        self, arguments: Sequence[str], directory: Path, cluster: ThreeMachines | None = None
    ) -> None:
        self._cluster = cluster
        prefix = cluster.prefix if cluster else ()
        joined = ["--address", cluster.address] if cluster else []
        self._errors = (directory / "stderr").open("ab")
        # The token of the cluster, and nothing else of Ray.
        kept = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN") if cluster else ()
        own = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_") or name in kept}
        self.start = time.monotonic()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "ksmcluster", *arguments, *joined],
            env=own,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def processes(self) -> list[LinuxProcess]:
        """Return the processes of the command and of the Ray that it uses."""
        roots = [os.getpid()] if self._cluster else [self._process.pid]
        return descendants(roots)

    def of_kind(self, names: Sequence[str]) -> list[LinuxProcess]:
        return [one for one in self.processes() if any(name in one.command() for name in names)]

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait until something holds; return False if the command ends before."""
        while not until():
            if not self.runs:
                return False
            time.sleep(0.02)
        return True

    def send(self, rng: Random, names: Sequence[str], number: signal.Signals) -> bool:
        """Send a signal to a process of these kinds; return False if the command ends before there is one."""
        while self.wait(lambda: bool(self.of_kind(names))):
            with suppress(IndexError, ProcessLookupError):  # it has ended meanwhile
                os.kill(rng.choice(self.of_kind(names)).pid, number)
                return self.runs
        return False

    def kill(self) -> None:
        """Kill the command, and then what is left of its own Ray."""
        found = [] if self._cluster else self.processes()
        self._process.kill()
        self._process.wait()
        for one in found:
            one.kill()
        self._errors.close()

    def end(self) -> int:
        """Wait for the end of the command; return its exit code, or -1 if it takes too long."""
        try:
            return self._process.wait(max(self.start + LIMIT - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            return -1
        finally:
            self.kill()


def scenario(command: str, passes: int) -> list[str]:
    """Return the arguments of a run of so many passes; of `compact`, with 4 MiB a node for each of them."""
    return [command, *(argument.format(passes=passes, memory=4 * passes) for argument in SCENARIOS[command])]


def undisturbed(arguments: Sequence[str], directory: Path) -> None:
    """Run a scenario without any disturbance, into `directory`/output."""
    directory.mkdir()
    command = Command([*arguments, "--output", str(directory / "output")], directory)
    code = command.end()
    if code != 0:
        raise RuntimeError(f"exit code {code}: {(directory / 'stderr').read_text()[-500:]}")


def differences(made: Path, expected: Path) -> list[str]:
    """Return the names of the files that differ, but for that which says how a run was made."""
    names = {path.name for folder in (made, expected) if folder.is_dir() for path in folder.iterdir()}
    return [
        name
        for name in sorted(names - {"provenance.json"})
        if not ((made / name).is_file() and (expected / name).is_file())
        or (made / name).read_bytes() != (expected / name).read_bytes()
    ]
