"""Mail to actors of other machines: over TCP into memory that these share.

Ray's object store does the same, but copies each object three times, in pieces that its processes pass on.
Here one actor of the other machine receives what a sender has for all of them, whatever it is doing itself.

A firewall may forbid that. So a sender gives up after a while, and its mail goes through Ray.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from struct import Struct
from threading import Thread
from typing import BinaryIO, NamedTuple, cast

from actors.links import tcp
from actors.links.mail_file import MailFile
from actors.links.shared_file import SharedFile
from actors.links.shared_mail import SharedMail

#: Machines that an actor sends to at the same time.
_AT_A_TIME = 32
_TOKEN_SIZE = 16
#: The superstep, and the size of the mail.
_HEADER = Struct(">QQ")
#: Bytes that are read and written at once: they stay in a core's cache.
_PIECE_SIZE = 1 << 18


class FarAddress(NamedTuple):
    """Where an actor receives mail, and what each side says first."""

    host: str
    port: int
    token: bytes
    answer: bytes


class FarMachine(NamedTuple):
    """Another machine: its actors, and where it takes mail."""

    actors: frozenset[int]
    address: FarAddress


def send_far(seq: int, mail: Sequence[tuple[MailFile, FarAddress]]) -> list[dict[int, bytes]]:
    """Send mail of a superstep to other machines.

    Returns for each machine and receiver bytes that unpickle to the mail in its processes; nothing for one
    that cannot be reached.
    """
    if len(mail) < 2:
        return [_send(seq, *to) for to in mail]
    with ThreadPoolExecutor(min(len(mail), _AT_A_TIME)) as threads:
        return list(threads.map(lambda to: _send(seq, *to), mail))


def _send(seq: int, made: MailFile, address: FarAddress) -> dict[int, bytes]:
    host, port, token, answer = address
    try:
        with tcp.connected((host, port)) as connection, connection.makefile("rb") as file:
            connection.settimeout(tcp.STALL_SECONDS)
            connection.sendall(token)
            # Another program may listen there since the receiver has died: it gets nothing.
            if not secrets.compare_digest(file.read(_TOKEN_SIZE), answer):
                return {}
            with connection.makefile("wb", _PIECE_SIZE) as out:
                out.write(_HEADER.pack(seq, made.size))
                made.write(cast("BinaryIO", out))
            kept = pickle.load(file)
            assert isinstance(kept, SharedFile)
            return made.layout.locations(kept)
    except (OSError, EOFError):
        return {}


def receive_far(host: str, shared_mail: SharedMail) -> FarAddress:
    """Take mail for the actors of this machine into this memory, until the process ends; return where.

    host: the address on which other machines reach this one. Raises OSError if one cannot listen there, or if
    no memory can be shared.
    """
    if not shared_mail.works:
        raise OSError("no memory can be shared")
    token, answer = secrets.token_bytes(_TOKEN_SIZE), secrets.token_bytes(_TOKEN_SIZE)
    server = _Server(host, token, answer, shared_mail)
    return FarAddress(host, server.server_address[1], token, answer)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, host: str, token: bytes, answer: bytes, shared_mail: SharedMail) -> None:
        super().__init__((host, 0), _Sender, bind_and_activate=False)
        self.socket.close()
        self.socket = tcp.bound(host)
        self.server_address = self.socket.getsockname()
        self.server_activate()
        self.token, self.answer, self.shared_mail = token, answer, shared_mail
        Thread(target=self.serve_forever, daemon=True).start()


class _Sender(StreamRequestHandler):
    """One sender."""

    server: _Server
    timeout = tcp.STALL_SECONDS

    def handle(self) -> None:
        # A sender whose mail does not arrive, or cannot be kept, hears nothing, and takes another way.
        with suppress(OSError, EOFError):
            if not secrets.compare_digest(self.rfile.read(_TOKEN_SIZE), self.server.token):
                return
            self.wfile.write(self.server.answer)
            seq, size = _HEADER.unpack(_whole(self.rfile.read(_HEADER.size), _HEADER.size))
            memory = self.server.shared_mail.keep(seq, lambda file: self._copy(file, size))
            self.wfile.write(pickle.dumps(SharedFile.of(memory), 5))

    def _copy(self, file: BinaryIO, size: int) -> None:
        """Copy the next bytes of the sender into a file."""
        piece = memoryview(bytearray(_PIECE_SIZE))
        while size:
            part = piece[: min(size, _PIECE_SIZE)]
            got = self.rfile.readinto(part)
            file.write(_whole(part[:got], len(part)))
            size -= len(part)


def _whole(read: bytes | memoryview, size: int) -> bytes | memoryview:
    """Return what was read. Raises EOFError if there is less."""
    if len(read) < size:
        raise EOFError
    return read
