"""Lines between the coordinator and the node actors, for supersteps without Ray's calls.

A call of Ray wakes several threads of each process, there and back: 1 to 4 ms, where a message on a socket
takes a tenth of one. On one machine these are Unix sockets with a name in Linux's abstract namespace, so no
file is left behind, whatever dies; between machines, TCP. Any process may connect, so actors show a token.

An actor that is called with `talk` is on its line until it hears b"". It answers no other call meanwhile.
"""

from __future__ import annotations

import pickle
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from actors.answers import WAIT, answers, check_cluster
from actors.links import tcp

_TOKEN_SIZE, _ACTOR_SIZE = 16, 4
#: The longest wait for the token of a process that has connected, in seconds.
_TOKEN_SECONDS = 1.0


class LineAddress(NamedTuple):
    """Where the coordinator listens, by the name of a Unix socket or TCP; and what an actor says first."""

    name: bytes | tuple[str, int]
    token: bytes


class Listening:
    """The coordinator's end, until the actors have connected."""

    def __init__(self, actors: int, host: str | None) -> None:
        """Let actors connect.

        actors: how many there are. host: the address of this machine for the others; None if all actors are
        here. Raises OSError where there are no such sockets.
        """
        self._socket = tcp.bound(host) if host else _on_this_machine()
        self._socket.listen(actors)
        self._socket.settimeout(tcp.CONNECT_SECONDS)
        name = self._socket.getsockname()
        self.address = LineAddress(name[:2] if host else name, secrets.token_bytes(_TOKEN_SIZE))

    def accept(self, connected: int) -> dict[int, Connection]:
        """Return the line to each actor, and stop listening.

        connected: how many actors there are to wait for. All of them have called `open_line`. One whose
        connection broke since then has no line.
        """
        found: dict[int, Connection] = {}
        with self._socket, suppress(TimeoutError):
            while len(found) < connected:
                line = Connection(self._socket.accept()[0].detach())
                said = _said(line)
                if secrets.compare_digest(said[:_TOKEN_SIZE], self.address.token):
                    found[int.from_bytes(said[_TOKEN_SIZE:], "big")] = line
        return found


def _on_this_machine() -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(f"\0ksmcluster {secrets.token_hex(16)}")
    return found


def _said(line: Connection) -> bytes:
    """Return the first message of a process that has connected, b"" if it is none of an actor."""
    try:
        return line.recv_bytes(_TOKEN_SIZE + _ACTOR_SIZE) if line.poll(_TOKEN_SECONDS) else b""
    except (EOFError, OSError):
        return b""


def open_line(address: LineAddress, actor: int) -> Connection | None:
    """Return an actor's end of its line to the coordinator; None if it cannot reach it."""
    try:
        line = Connection(_connected(address.name).detach())
    except OSError:  # a sandbox, a network namespace of its own, or a firewall
        return None
    line.send_bytes(address.token + actor.to_bytes(_ACTOR_SIZE, "big"))
    return line


def _connected(name: bytes | tuple[str, int]) -> socket.socket:
    if not isinstance(name, bytes):
        return tcp.connected(name)
    found = socket.socket(socket.AF_UNIX)
    found.connect(name)
    return found


class Lines:
    """The coordinator's lines, and the calls of `talk` of the actors that are on them."""

    def __init__(self, lines: dict[int, Connection], talk: Callable[[int, bytes], Any]) -> None:
        """Take the line to each actor, and what calls an actor with its first request."""
        self._lines = lines
        self._talk = talk
        self._talks: dict[int, Any] = {}

    def __contains__(self, actor: int) -> bool:
        return actor in self._lines

    def ask(self, requests: Mapping[int, object]) -> dict[int, Any]:
        """Send each actor its request, pickled, and return the answers. All must have lines.

        An actor that has left its line is not among them. Raises the error that ended an actor's talk.
        """
        for actor, request in requests.items():
            self._say(actor, pickle.dumps(request, 5))
        answered: dict[int, Any] = {}
        waiting = {self._lines[actor]: actor for actor in requests}
        while waiting:
            ready = wait(list(waiting), WAIT)
            if not ready:
                check_cluster()
                self._check_talks()
            for line in ready:
                assert isinstance(line, Connection)
                actor = waiting.pop(line)
                if answer := self._received(actor, line):
                    answered[actor] = pickle.loads(answer)
        return answered

    def _check_talks(self) -> None:
        """Raise the error that ended an actor's talk: a machine without power says nothing on its lines."""
        import ray

        talks = list(self._talks.values())
        answers(ray.wait(talks, num_returns=len(talks), timeout=0)[0])

    def _say(self, actor: int, request: bytes) -> None:
        if actor not in self._talks:
            self._talks[actor] = self._talk(actor, request)
            return
        # If the actor has left its line, it is seen when the answer is read.
        with suppress(OSError):
            self._lines[actor].send_bytes(request)

    def _received(self, actor: int, line: Connection) -> bytes:
        """Return what an actor says, b"" if it has left its line; raise the error for which it did."""
        try:
            return line.recv_bytes()
        except (EOFError, OSError):
            del self._lines[actor]
            line.close()
            answers(self._talks.pop(actor))
            return b""

    def end_talks(self) -> None:
        """Let the actors leave their lines, for calls; the next request calls them back."""
        for actor in self._talks:
            # The next call of an actor that has died says so.
            with suppress(OSError):
                self._lines[actor].send_bytes(b"")
        self._talks.clear()

    def close(self) -> None:
        """Give up all lines, whatever is under way on them. Actors leave them then."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._talks.clear()
