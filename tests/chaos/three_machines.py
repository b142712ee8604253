"""A Ray cluster of three machines, which may die: network namespaces, or else raylets of this host."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from actors.runtime import environment
from actors.watching.processes import LinuxProcess, descendants

_PORT = 26379
#: Bytes of each machine's object store.
OBJECT_STORE = 100 << 20
#: The time that a raylet has to start, in seconds.
_START_SECONDS = 120.0


class Machine:
    """A raylet and what descends from it; `prefix` is the command that runs others there."""

    def __init__(self, prefix: Sequence[str], address: str, head: str | None, object_store: int) -> None:
        """Start it as the head, or let it join the cluster of `head`."""
        self.prefix = prefix
        self.address = address
        role = [f"--address={head}"] if head else ["--head", f"--port={_PORT}", "--include-dashboard=false"]
        self._process = subprocess.Popen(
            [
                *prefix,
                str(Path(sys.executable).with_name("ray")),
                "start",
                *role,
                f"--node-ip-address={address}",
                "--num-cpus=2",
                f"--object-store-memory={object_store}",
                "--block",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def processes(self) -> list[LinuxProcess]:
        """Return all of its processes, but not the one that started them."""
        return descendants([self._process.pid])

    def kill(self) -> None:
        """Kill all of it at once."""
        found = self.processes()
        self._process.kill()
        for one in found:
            one.kill()
        self._process.wait()


class ThreeMachines:
    """The cluster: a head, which has to live, and two others."""

    def __init__(self, places: Sequence[tuple[Sequence[str], str]], object_store: int) -> None:
        """Take the prefix of commands and the address of each machine."""
        self._places, self._object_store = places, object_store
        self.address = f"{places[0][1]}:{_PORT}"
        self.machines: list[Machine] = []
        # One after the other: they share a directory, and choose names of sockets there.
        try:
            for place in range(len(places)):
                self.machines.append(self._start(place))
                self._wait(len(self.machines))
        except BaseException:
            self.close()
            raise

    def _start(self, place: int) -> Machine:
        prefix, address = self._places[place]
        return Machine(prefix, address, self.address if place else None, self._object_store)

    @property
    def prefix(self) -> Sequence[str]:
        """The command that runs others on the head."""
        return self._places[0][0]

    def revive(self) -> None:
        """Replace the machines that are dead, one after the other, and wait until there are three."""
        for place, machine in enumerate(self.machines):
            if not machine.runs:
                self.machines[place] = self._start(place)
                self._wait(sum(one.runs for one in self.machines))

    def _wait(self, count: int) -> None:
        """Wait until so many machines are alive."""
        end = time.monotonic() + _START_SECONDS
        while self._alive() != count:
            if time.monotonic() > end:
                raise TimeoutError("the cluster does not start")
            time.sleep(1)

    def _alive(self) -> int:
        code = (
            "import logging, ray; "
            f"ray.init({self.address!r}, logging_level=logging.CRITICAL, log_to_driver=False); "
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        asked = subprocess.run(
            [*self.prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=_START_SECONDS
        )
        return int(asked.stdout) if asked.returncode == 0 and asked.stdout.strip().isdigit() else 0

    def close(self) -> None:
        for machine in reversed(self.machines):
            machine.kill()


@contextmanager
def three_machines(object_store: int = OBJECT_STORE) -> Iterator[ThreeMachines]:
    """Provide the cluster: each machine with an address of its own where root can make network namespaces."""
    environment()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with ExitStack() as stack:
        places = stack.enter_context(_namespaces()) if _has_namespaces() else [((), "127.0.0.1")] * 3
        cluster = ThreeMachines(places, object_store)
        stack.callback(cluster.close)
        yield cluster


def _has_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"ksmtry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        _ip("netns", "delete", name)
    return made


@contextmanager
def _namespaces() -> Iterator[list[tuple[list[str], str]]]:
    """Provide three namespaces on a bridge of their own: prefixes of commands, and addresses."""
    tag = os.getpid() % 100_000
    bridge = f"kb{tag}"
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge)
        _ip("link", "set", bridge, "up")
        places = []
        for number in range(1, 4):
            name, outside, address = f"kn{tag}-{number}", f"kv{tag}-{number}", f"10.213.77.{number}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            places.append((["ip", "netns", "exec", name], address))
        yield places


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
