"""Connections between processes of several machines. None of them waits for ever for a dead machine."""

from __future__ import annotations

import os
import socket

#: The longest waits for a connection, and for the other machine to take or say something, in seconds.
CONNECT_SECONDS, STALL_SECONDS = 5.0, 30.0


def own_host() -> str:
    """Return the IP address on which the other machines of the Ray cluster reach this one."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def bound(host: str) -> socket.socket:
    """Return a socket that is bound to a free port of this address.

    Raises OSError, also if Ray's own connections are encrypted, as these are not.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        raise OSError("Ray uses TLS")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.bind((host, 0))
    # Connections have it from the socket that listens.
    _do_not_wait(found)
    return found


def connected(address: tuple[str, int]) -> socket.socket:
    """Return a connection, whose reads may take any time. Raises OSError."""
    found = socket.create_connection(address, CONNECT_SECONDS)
    found.settimeout(None)
    _do_not_wait(found)
    return found


def _do_not_wait(connection: socket.socket) -> None:
    """Send what is written at once, and end the connection if the other machine does not take it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(STALL_SECONDS * 1000))
