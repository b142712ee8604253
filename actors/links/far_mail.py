"""Mail between actors of different machines, over TCP.

Ray's object store does the same, but copies each object three times, in pieces that its processes pass on.
Here a receiver asks the sender itself, and gets no more than the rows for its own nodes.

A firewall may forbid that. So a receiver gives up after a while, and says whose mail it cannot read.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from struct import Struct
from threading import Thread
from typing import BinaryIO, NamedTuple

import numpy as np

from actors.links import tcp
from cluster.wire.mailbox import Mail, among

#: Senders that a receiver reads from at the same time.
_AT_A_TIME = 32
_TOKEN_SIZE = 16
#: The superstep, and the nodes low..high-1 whose mail is wanted.
_WANTED = Struct(">QII")
_LENGTH = Struct(">Q")


class FarLocation(NamedTuple):
    """Where mail is had: the sender's address, what each side says first, and the superstep."""

    host: str
    port: int
    token: bytes
    answer: bytes
    seq: int


def fetched(locations: Mapping[int, FarLocation], low: int, high: int) -> dict[int, list[Mail]]:
    """Return the mail to nodes low..high-1 by sender, without the senders that cannot be reached."""
    if not locations:
        return {}
    with ThreadPoolExecutor(min(len(locations), _AT_A_TIME)) as threads:
        read = threads.map(lambda location: _fetched(location, low, high), locations.values())
        return {sender: mail for sender, mail in zip(locations, read, strict=True) if mail is not None}


def _fetched(location: FarLocation, low: int, high: int) -> list[Mail] | None:
    """Return the mail to nodes low..high-1, None if the sender cannot be reached."""
    try:
        with tcp.connected((location.host, location.port)) as connection:
            connection.settimeout(tcp.STALL_SECONDS)
            connection.sendall(location.token + _WANTED.pack(location.seq, low, high))
            with connection.makefile("rb") as file:
                # Another program may listen there since the sender has died: its pickles are not read.
                if not secrets.compare_digest(_read(file, _TOKEN_SIZE), location.answer):
                    return None
                contents = _read(file, *_LENGTH.unpack(_read(file, _LENGTH.size)))
                mail, sizes = pickle.loads(contents)
                read: list[Mail] = pickle.loads(mail, buffers=[_read(file, size) for size in sizes])
                return read
    except (OSError, EOFError):
        return None


def _read(file: BinaryIO, size: int) -> memoryview:
    """Return the next bytes. Raises EOFError if there are fewer."""
    column = np.empty(size, np.uint8).data
    if file.readinto(column) < size:  # type: ignore[attr-defined]
        raise EOFError
    return column


class FarMail:
    """The mail that one actor keeps for the actors of other machines.

    Mail of superstep s is read during superstep s + 1, and freed when superstep s + 2 begins.
    """

    def __init__(self, host: str) -> None:
        """Take the address on which other machines reach this one."""
        self._host = host
        self._token, self._answer = secrets.token_bytes(_TOKEN_SIZE), secrets.token_bytes(_TOKEN_SIZE)
        self._kept: dict[int, list[Mail]] = {}
        self._server: _Server | None = None

    def begin(self, seq: int) -> None:
        """Begin a superstep: free the mail that all have read."""
        for earlier in [n for n in self._kept if n + 1 < seq]:
            del self._kept[earlier]

    def put(self, seq: int, mail: list[Mail]) -> bytes | None:
        """Keep the mail of a superstep; return the pickled `FarLocation` of it, None if there is none."""
        self._kept[seq] = mail
        if self._server is None:
            with suppress(OSError):  # a sandbox, or TLS
                self._server = _Server(self._host, self._token, self._answer, self._kept)
        if self._server is None:
            return None
        port = self._server.server_address[1]
        return pickle.dumps(FarLocation(self._host, port, self._token, self._answer, seq), 5)

    def take_back(self, seq: int) -> list[Mail]:
        """Return the mail of a superstep, which is not freed yet; [] if there is none."""
        return self._kept.get(seq, [])

    def close(self) -> None:
        """Free all mail."""
        self._kept.clear()


class _Server(ThreadingTCPServer):
    """Gives mail to those who know the token."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, host: str, token: bytes, answer: bytes, kept: Mapping[int, list[Mail]]) -> None:
        """Listen on a free port of this address. Raises OSError."""
        super().__init__((host, 0), _Reader, bind_and_activate=False)
        self.socket.close()
        self.socket = tcp.bound(host)
        self.server_address = self.socket.getsockname()
        self.server_activate()
        self.token, self.answer, self.kept = token, answer, kept
        Thread(target=self.serve_forever, daemon=True).start()


class _Reader(StreamRequestHandler):
    """One receiver."""

    server: _Server
    timeout = tcp.STALL_SECONDS
    wbufsize = 1 << 16

    def handle(self) -> None:
        # A receiver that has left asks again in another way.
        with suppress(OSError, KeyError):
            token, wanted = self.rfile.read(_TOKEN_SIZE), self.rfile.read(_WANTED.size)
            if secrets.compare_digest(token, self.server.token) and len(wanted) == _WANTED.size:
                seq, low, high = _WANTED.unpack(wanted)
                self._send(among(self.server.kept[seq], low, high))

    def _send(self, mail: list[Mail]) -> None:
        columns: list[pickle.PickleBuffer] = []
        packed = pickle.dumps(mail, 5, buffer_callback=columns.append)
        views = [column.raw() for column in columns]
        contents = pickle.dumps((packed, [view.nbytes for view in views]), 5)
        self.wfile.write(self.server.answer + _LENGTH.pack(len(contents)) + contents)
        for view in views:
            self.wfile.write(view)
