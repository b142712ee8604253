"""Mail that goes over TCP into memory that actors of another machine share."""

from __future__ import annotations

import pickle
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import numpy as np
import pytest
import ray

from actors.links import tcp
from actors.links.direct_lines import Listening
from actors.links.far_mail import FarAddress, FarMachine, receive_far, send_far
from actors.links.shared_mail import SharedMail, read_mail
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.node_actor import LITTLE_MAIL
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from cluster.wire.mailbox import Mail, Outbox
from cluster.wire.messages import Kind
from ksmcluster.bench.tools.shapes import spread_out
from tests.actors.test_engine import same

LOCAL = "127.0.0.1"
#: Prints the mail that it reads from memory of the receiver.
READER = """
import pickle, sys
for mail in pickle.load(sys.stdin.buffer):
    for kind, table in mail.all_tables():
        print(mail.sender, kind.name, table.to.tolist(), *(column.tolist() for column in table.columns))
"""


def mail(sender: int, keys: Sequence[int]) -> Mail:
    """From a node to each of four, of which the last gets the keys backwards."""
    out = Outbox(sender, 4)
    for to in range(4):
        out.send(Kind.PUT, to, np.array(keys[:: -1 if to == 3 else 1]) + 100 * to)
    return out.pack()


@pytest.fixture
def received() -> Iterator[SharedMail]:
    """The memory of the actor that takes the mail of its machine."""
    with closing(SharedMail()) as received:
        yield received


def machine(received: SharedMail, low: int = 0, high: int = 4) -> FarMachine:
    return FarMachine(frozenset(range(low, high)), low, high, receive_far(LOCAL, received))


def test_the_other_machine_gets_the_rows_for_its_nodes(received: SharedMail) -> None:
    (location,) = send_far(1, [mail(0, [5, 6]), mail(3, [7])], [machine(received, 1, 3)])
    assert location is not None
    ran = subprocess.run([sys.executable, "-c", READER], input=location, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == [
        "0 PUT [1, 2] [105, 106, 205, 206]",
        "3 PUT [1, 2] [107, 207]",
    ]


def test_large_columns_arrive_whole(received: SharedMail) -> None:
    keys = np.arange(300_000)
    (location,) = send_far(1, [mail(0, keys.tolist())], [machine(received, 3, 4)])
    assert location is not None
    (sent,) = pickle.loads(location)
    (column,) = sent.tables[Kind.PUT][0].columns
    assert np.array_equal(column, keys[::-1] + 300)


def test_it_stays_for_one_superstep_more(received: SharedMail) -> None:
    far = machine(received)
    (location,) = send_far(3, [mail(0, [5])], [far])
    received.begin(4)
    # The sender may be a superstep ahead.
    (ahead,) = send_far(5, [mail(1, [5])], [far])
    assert location is not None and ahead is not None
    assert [sent.sender for sent in pickle.loads(location)] == [0]
    received.begin(5)
    assert read_mail({0: location, 1: ahead})[1] == [0]
    received.begin(6)
    assert read_mail({1: ahead})[1] == []


def test_each_machine_is_sent_to(received: SharedMail) -> None:
    gone = FarMachine(frozenset([2]), 2, 3, FarAddress(*unused(), b"", b""))
    sent = send_far(1, [mail(0, [5])], [machine(received, 0, 1), gone, machine(received, 1, 2)])
    assert sent[1] is None
    for node in (0, 1):
        location = sent[2 * node]
        assert location is not None
        assert [part.to for part in pickle.loads(location)] == [(node,)]


def test_mail_of_those_without_the_token_is_not_taken(received: SharedMail) -> None:
    far = machine(received)
    stranger = far.address._replace(token=secrets.token_bytes(16))
    assert send_far(1, [mail(0, [5])], [far._replace(address=stranger)]) == [None]
    with socket.create_connection((far.address.host, far.address.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        assert connection.makefile("rb").read() == b""
    assert send_far(1, [mail(0, [5])], [far]) != [None]


def unused() -> tuple[str, int]:
    with socket.create_server((LOCAL, 0)) as closed:
        host, port = closed.getsockname()
        return host, port


class Trap:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return sys.exit, ("unpickled",)


def sent_to(answer: bytes) -> bytes | None:
    """Send mail to a program that says so, and takes all."""
    with socket.create_server((LOCAL, 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = Thread(target=serve)
        thread.start()
        address = FarAddress(*listening.getsockname(), b"t" * 16, b"a" * 16)
        (location,) = send_far(1, [mail(0, [5])], [FarMachine(frozenset([0]), 0, 4, address)])
        thread.join()
    return location


def test_what_another_program_says_is_not_unpickled() -> None:
    assert sent_to(b"b" * 16 + pickle.dumps(Trap())) is None
    with pytest.raises(SystemExit):
        sent_to(b"a" * 16 + pickle.dumps(Trap()))


@pytest.mark.parametrize("said", [b"", b"a" * 7, b"a" * 16])
def test_a_receiver_that_dies_in_the_middle(said: bytes) -> None:
    assert sent_to(said) is None


def test_a_receiver_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STALL_SECONDS", 0.1)
    with socket.create_server((LOCAL, 0)) as silent:
        address = FarAddress(*silent.getsockname(), b"", b"")
        assert send_far(1, [mail(0, [5])], [FarMachine(frozenset([0]), 0, 4, address)]) == [None]


def files_in_memory() -> int:
    links = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return sum("ksmcluster mail" in link for link in links)


def test_nothing_is_left_of_a_sender_that_dies_in_the_middle(received: SharedMail) -> None:
    far = machine(received)
    address = far.address
    assert send_far(1, [mail(0, [5])], [far]) != [None]
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(address.token + (1).to_bytes(8, "big") + (1000).to_bytes(8, "big") + b"half")
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == address.answer
    assert files_in_memory() == 1


def test_memory_that_cannot_be_shared_takes_no_mail(received: SharedMail) -> None:
    received.works = False
    with pytest.raises(OSError, match="shared"):
        receive_far(LOCAL, received)


def test_an_address_that_is_not_here(received: SharedMail) -> None:
    with pytest.raises(OSError, match="assign"):
        receive_far("192.0.2.1", received)  # of documentation, RFC 5737


def test_nothing_goes_beside_connections_that_are_encrypted(
    received: SharedMail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    for listen in (lambda: receive_far(LOCAL, received), lambda: Listening(1, LOCAL)):
        with pytest.raises(OSError, match="TLS"):
            listen()


#: Four nodes on three machines.
SPEC = spread_out(4, 1 << 15, 2)


def refuse(_address: object) -> socket.socket:
    raise ConnectionRefusedError


def unreachable(actor: object) -> None:
    """Let this actor take no mail from other machines."""
    tcp.bound = refuse


def cut_off(actor: object) -> None:
    """Let this actor send no mail to other machines."""
    tcp.connected = refuse


def flaky(actor: object) -> None:
    """Let each second of this actor's connections fail."""
    connected, calls = tcp.connected, count()

    def sometimes(address: tuple[str, int]) -> socket.socket:
        return refuse(address) if next(calls) % 2 else connected(address)

    tcp.connected = sometimes


def full(actor: object) -> None:
    """Let each third piece of mail find no memory on this actor's machine."""
    shared_mail: SharedMail = actor._shared_mail  # type: ignore[attr-defined]
    keep, calls = shared_mail.keep, count()

    def sometimes(seq: int, write: Callable[[BinaryIO], None]) -> int:
        if next(calls) % 3 == 2:
            raise OSError("no memory")
        return keep(seq, write)

    shared_mail.keep = sometimes  # type: ignore[method-assign]


def sealed(actor: object) -> None:
    """Let this actor neither send mail nor take it, on its own machine either."""
    unreachable(actor)
    cut_off(actor)
    actor._shared_mail.works = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def inline() -> list[PassResult]:
    results = list(run_passes(SPEC, INLINE))
    assert results[1].nodes["bytes_sent"].min() > LITTLE_MAIL
    return results


def test_all_of_it_goes_this_way(ray_cluster: str, inline: list[PassResult]) -> None:
    """On the same actors one run after the other."""
    with closing(ActorPool()) as pool:
        for _ in range(2):
            assert same(list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool)), inline)

        def look(actor: Any) -> tuple[int, set[object], set[object]]:
            return len(actor._far), actor._unreached, actor._cut_off

        machines = pool.machines(4)
        found = ray.get([actor.__ray_call__.remote(look) for actor in pool.actors(4)])
        assert found == [(len(set(machines)) - 1, set(), set())] * 4


@pytest.mark.parametrize("change", [unreachable, cut_off, flaky, full, sealed])
@pytest.mark.parametrize("changed", [[1], range(4)])
def test_the_result_is_the_same(
    ray_cluster: str, inline: list[PassResult], change: Callable[[object], None], changed: Sequence[int]
) -> None:
    with closing(ActorPool()) as pool:
        actors = pool.actors(4)
        assert len(set(pool.machines(4))) > 1
        ray.get([actors[actor].__ray_call__.remote(change) for actor in changed])
        made = list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool))
    assert same(made, inline)
