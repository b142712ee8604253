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
from actors.links.far_mail import FarAddress, receive_far, send_far
from actors.links.mail_file import columns_file, parcels_file
from actors.links.shared_mail import SharedMail, read_mail
from actors.run_options import INLINE, RunOptions
from actors.simulation import node_actor
from actors.simulation.actor_pool import ActorPool
from actors.simulation.node_actor import LITTLE_MAIL
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from cluster.wire.mailbox import Mail, Outbox, among
from cluster.wire.messages import Kind
from cluster.wire.parcels import Parcel, packed
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


@pytest.fixture
def address(received: SharedMail) -> FarAddress:
    return receive_far(LOCAL, received)


def sent_to(address: FarAddress, *mail: Mail, seq: int = 1) -> bytes | None:
    """Send the only actor of a machine this mail; return where it is."""
    (locations,) = send_far(seq, [(columns_file(list(mail), [7]), address)])
    return locations.get(7)


def test_the_other_machine_reads_it(address: FarAddress) -> None:
    location = sent_to(address, *among([mail(0, [5, 6]), mail(3, [7])], 1, 3))
    assert location is not None
    ran = subprocess.run([sys.executable, "-c", READER], input=location, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == [
        "0 PUT [1, 2] [105, 106, 205, 206]",
        "3 PUT [1, 2] [107, 207]",
    ]


def test_each_actor_of_the_machine_gets_its_parcel(address: FarAddress) -> None:
    parcels = packed([mail(0, [5, 6])], [(0, 1), (1, 4)])
    (locations,) = send_far(1, [(parcels_file(0, dict(enumerate(parcels))), address)])
    assert [pickle.loads(locations[actor]) for actor in (0, 1)] == [Parcel(0, data) for data in parcels]


def test_large_columns_arrive_whole(address: FarAddress) -> None:
    keys = np.arange(300_000)
    location = sent_to(address, *among([mail(0, keys.tolist())], 3, 4))
    assert location is not None
    (sent,) = pickle.loads(location)
    (column,) = sent.tables[Kind.PUT][0].columns
    assert np.array_equal(column, keys[::-1] + 300)


def test_it_stays_for_one_superstep_more(received: SharedMail, address: FarAddress) -> None:
    location = sent_to(address, mail(0, [5]), seq=3)
    received.begin(4)
    # The sender may be a superstep ahead.
    ahead = sent_to(address, mail(1, [5]), seq=5)
    assert location is not None and ahead is not None
    assert [sent.sender for sent in pickle.loads(location)] == [0]
    received.begin(5)
    assert read_mail({0: location, 1: ahead})[2] == [0]
    received.begin(6)
    assert read_mail({1: ahead})[2] == []


def test_each_machine_is_sent_to(received: SharedMail) -> None:
    gone = FarAddress(*unused(), b"", b"")
    addresses = [receive_far(LOCAL, received), gone, receive_far(LOCAL, received)]
    files = [columns_file([mail(node, [5])], [node]) for node in range(3)]
    first, second, third = send_far(1, list(zip(files, addresses, strict=True)))
    assert second == {}
    for node, locations in ((0, first), (2, third)):
        assert [sent.sender for sent in pickle.loads(locations[node])] == [node]


def test_mail_of_those_without_the_token_is_not_taken(address: FarAddress) -> None:
    stranger = address._replace(token=secrets.token_bytes(16))
    assert sent_to(stranger, mail(0, [5])) is None
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        assert connection.makefile("rb").read() == b""
    assert sent_to(address, mail(0, [5])) is not None


def unused() -> tuple[str, int]:
    with socket.create_server((LOCAL, 0)) as closed:
        host, port = closed.getsockname()
        return host, port


class Trap:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return sys.exit, ("unpickled",)


def sent_to_program(answer: bytes) -> bytes | None:
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
        location = sent_to(address, mail(0, [5]))
        thread.join()
    return location


def test_what_another_program_says_is_not_unpickled() -> None:
    assert sent_to_program(b"b" * 16 + pickle.dumps(Trap())) is None
    with pytest.raises(SystemExit):
        sent_to_program(b"a" * 16 + pickle.dumps(Trap()))


@pytest.mark.parametrize("said", [b"", b"a" * 7, b"a" * 16])
def test_a_receiver_that_dies_in_the_middle(said: bytes) -> None:
    assert sent_to_program(said) is None


def test_a_receiver_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STALL_SECONDS", 0.1)
    with socket.create_server((LOCAL, 0)) as silent:
        address = FarAddress(*silent.getsockname(), b"", b"")
        assert sent_to(address, mail(0, [5])) is None


def files_in_memory() -> int:
    links = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return sum("ksmcluster mail" in link for link in links)


def test_nothing_is_left_of_a_sender_that_dies_in_the_middle(address: FarAddress) -> None:
    assert sent_to(address, mail(0, [5])) is not None
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


def in_columns(actor: object) -> None:
    """Let mail of this actor's process go in columns."""
    node_actor.LARGE_PARCEL = 0


def in_parcels(actor: object) -> None:
    """Let mail of this actor's process go in parcels."""
    node_actor.LARGE_PARCEL = 1 << 30


@pytest.mark.parametrize("layout", [in_columns, in_parcels])
def test_all_of_it_goes_this_way(
    ray_cluster: str, inline: list[PassResult], layout: Callable[[object], None]
) -> None:
    """On the same actors one run after the other."""
    with closing(ActorPool()) as pool:
        actors = pool.actors(4)
        ray.get([actor.__ray_call__.remote(layout) for actor in actors])
        for _ in range(2):
            assert same(list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool)), inline)

        def look(actor: Any) -> tuple[int, set[object], set[object]]:
            return len(actor._far), actor._unreached, actor._cut_off

        machines = pool.machines(4)
        found = ray.get([actor.__ray_call__.remote(look) for actor in actors])
        assert found == [(len(set(machines)) - 1, set(), set())] * 4


@pytest.mark.parametrize("change", [unreachable, cut_off, flaky, full, sealed])
@pytest.mark.parametrize(
    ("changed", "layout"), [([1], in_columns), (range(4), in_columns), ([1], in_parcels)]
)
def test_the_result_is_the_same(
    ray_cluster: str,
    inline: list[PassResult],
    change: Callable[[object], None],
    changed: Sequence[int],
    layout: Callable[[object], None],
) -> None:
    with closing(ActorPool()) as pool:
        actors = pool.actors(4)
        assert len(set(pool.machines(4))) > 1
        ray.get([actor.__ray_call__.remote(layout) for actor in actors])
        ray.get([actors[actor].__ray_call__.remote(change) for actor in changed])
        made = list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool))
    assert same(made, inline)
