"""Whether the head of the Ray cluster still answers, which this process has joined."""

from __future__ import annotations

import os
import re
import socket
import time

from cluster.spec.errors import LostError

#: What a client of HTTP/2, and so of gRPC, sends first: its preface and empty settings.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class HeadLostError(LostError):
    """The head of the cluster died, or is out of reach. The run cannot go on in this process."""


class Head:
    """The head of the cluster: its GCS. Without it Ray ends this process after a minute."""

    def __init__(self) -> None:
        #: Why it is lost, or "".
        self.lost = ""
        #: Whether all machines of the cluster are dead, or out of reach.
        self.alone = False

    def check(self) -> None:
        """Raise HeadLostError if it is lost."""
        if self.lost:
            raise HeadLostError(self.lost)


#: A process joins one cluster at a time. The watchdog of the driver says when its head is lost.
HEAD = Head()


def check_answers(address: str, timeout: float) -> None:
    """Raise OSError if no gRPC server answers at the address of a cluster within the time limit.

    Ray would go on trying for minutes, and heed no signal meanwhile.
    """
    from ray._private.services import canonicalize_bootstrap_address

    host, colon, port = (canonicalize_bootstrap_address(address) or "").rpartition(":")
    if not colon or not port.isdigit():
        return
    end = time.monotonic() + timeout
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_HTTP2_HELLO)
            connection.settimeout(max(end - time.monotonic(), 0.001))
            if not connection.recv(1):
                raise ConnectionError("what listens there is no Ray cluster")
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s") from None


def first_line(error: Exception) -> str:
    """Return what an error says, in one line without its number."""
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return re.sub(r"^\[Errno \d+\] ", "", line) or type(error).__name__
