"""Mail that actors of other machines fetch over TCP."""

from __future__ import annotations

import pickle
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Thread

import numpy as np
import pytest
import ray

from actors.links import tcp
from actors.links.direct_lines import Listening
from actors.links.far_mail import FarLocation, FarMail, fetched
from actors.links.read_mail import read_mail
from actors.links.shared_mail import SharedMail
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
#: Reads the mail to nodes 1 and 2, and prints it.
READER = """
import pickle, sys
from actors.links.direct_lines import Listening
from actors.links.far_mail import fetched
for mail in fetched({0: pickle.load(sys.stdin.buffer)}, 1, 3)[0]:
    for kind, table in mail.all_tables():
        print(mail.sender, kind.name, table.to, *(column.tolist() for column in table.columns))
"""


def mail(sender: int, keys: Sequence[int]) -> Mail:
    """From a node to each of four, of which the last gets the keys backwards."""
    out = Outbox(sender, 4)
    for to in range(4):
        out.send(Kind.PUT, to, np.array(keys[:: -1 if to == 3 else 1]) + 100 * to)
    return out.pack()


def location(far: FarMail, seq: int, sent: list[Mail]) -> FarLocation:
    packed = far.put(seq, sent)
    assert packed is not None
    found = pickle.loads(packed)
    assert isinstance(found, FarLocation)
    return found


def test_another_process_gets_the_rows_for_its_nodes() -> None:
    sent = [mail(0, [5, 6]), mail(3, [7])]
    ran = subprocess.run(
        [sys.executable, "-c", READER],
        input=pickle.dumps(location(FarMail(LOCAL), 1, sent)),
        capture_output=True,
        check=True,
    )
    assert ran.stdout.decode().splitlines() == [
        "0 PUT (1, 2) [105, 106, 205, 206]",
        "3 PUT (1, 2) [107, 207]",
    ]


def test_large_columns_arrive_whole() -> None:
    keys = np.arange(300_000)
    (read,) = fetched({7: location(FarMail(LOCAL), 1, [mail(0, keys.tolist())])}, 3, 4)[7]
    (column,) = read.tables[Kind.PUT][0].columns
    assert isinstance(column, np.ndarray)
    assert np.array_equal(column, keys[::-1] + 300)


def test_it_stays_for_one_superstep_more() -> None:
    far = FarMail(LOCAL)
    of_three = location(far, 3, [mail(0, [5])])
    far.begin(4)
    location(far, 4, [])
    assert [sent.sender for sent in fetched({0: of_three}, 0, 4)[0]] == [0]
    assert [sent.sender for sent in far.take_back(3)] == [0]
    far.begin(5)
    assert fetched({0: of_three}, 0, 4) == {}
    assert far.take_back(3) == []


def test_only_those_with_the_token_get_mail() -> None:
    found = location(FarMail(LOCAL), 1, [mail(0, [5])])
    assert fetched({0: found._replace(token=secrets.token_bytes(16))}, 0, 4) == {}
    with socket.create_connection((found.host, found.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        assert stranger.makefile("rb").read() == b""
    assert fetched({0: found}, 0, 4).keys() == {0}


def serving(answer: bytes) -> FarLocation:
    """Where another program listens, and answers so."""
    listening = socket.create_server((LOCAL, 0))

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(answer)

    Thread(target=serve).start()
    return FarLocation(*listening.getsockname(), b"t" * 16, b"a" * 16, 1)


class Trap:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return sys.exit, ("unpickled",)


def test_what_another_program_says_is_not_unpickled() -> None:
    trap = pickle.dumps(Trap())
    length = len(trap).to_bytes(8, "big")
    assert fetched({0: serving(b"b" * 16 + length + trap)}, 0, 4) == {}
    with pytest.raises(SystemExit):
        fetched({0: serving(b"a" * 16 + length + trap)}, 0, 4)


@pytest.mark.parametrize("said", [b"", b"a" * 7, b"a" * 16, b"a" * 16 + b"\0" * 7 + b"\x09" + b"b"])
def test_a_sender_that_dies_in_the_middle(said: bytes) -> None:
    assert fetched({0: serving(said)}, 0, 4) == {}


def test_a_sender_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STALL_SECONDS", 0.1)
    with socket.create_server((LOCAL, 0)) as silent:
        assert fetched({0: FarLocation(*silent.getsockname(), b"", b"", 1)}, 0, 4) == {}


def test_senders_that_cannot_be_reached_are_told() -> None:
    with socket.create_server((LOCAL, 0)) as closed:
        address = closed.getsockname()
    gone = pickle.dumps(FarLocation(*address, b"", b"", 1))
    with closing(SharedMail()) as shared:
        near = shared.put(1, [mail(2, [8])])
        far = FarMail(LOCAL).put(1, [mail(1, [9])])
        assert near is not None and far is not None
        read, unreadable = read_mail({4: gone, 5: near, 6: far}, 0, 4)
        assert sorted(sent.sender for sent in read) == [1, 2]
    assert unreadable == [4]


def test_an_address_that_is_not_here() -> None:
    far = FarMail("192.0.2.1")  # of documentation, RFC 5737
    assert far.put(1, [mail(0, [5])]) is None
    assert [sent.sender for sent in far.take_back(1)] == [0]


def test_nothing_goes_beside_connections_that_are_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert FarMail(LOCAL).put(1, [mail(0, [5])]) is None
    with pytest.raises(OSError, match="TLS"):
        Listening(1, LOCAL)


#: Four nodes on three machines.
SPEC = spread_out(4, 1 << 15, 2)


def unreachable(actor: object) -> None:
    """Let nobody fetch mail from this actor."""
    actor._far_mail = FarMail("192.0.2.1")  # type: ignore[attr-defined]


def cut_off(actor: object) -> None:
    """Let this actor fetch no mail."""

    def refuse(_address: tuple[str, int]) -> socket.socket:
        raise ConnectionRefusedError

    tcp.connected = refuse


def sealed(actor: object) -> None:
    """Let this actor neither give nor fetch mail, on its own machine either."""
    unreachable(actor)
    cut_off(actor)
    actor._shared_mail.works = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def inline() -> list[PassResult]:
    results = list(run_passes(SPEC, INLINE))
    assert results[1].nodes["bytes_sent"].min() > LITTLE_MAIL
    return results


def test_all_of_it_goes_this_way(ray_cluster: str, inline: list[PassResult]) -> None:
    with closing(ActorPool()) as pool:
        assert same(list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool)), inline)
        # No receiver had to ask for another way.
        served = [
            a.__ray_call__.remote(lambda a: (a._far_mail._server is not None, a._unreached))
            for a in pool.actors(4)
        ]
        assert ray.get(served) == [(True, set())] * 4


@pytest.mark.parametrize("change", [unreachable, cut_off, sealed])
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
