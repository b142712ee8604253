"""Lines between the coordinator and node actors: what is said on them, and runs that use them."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Client, Connection
from typing import Any

import pytest
import ray

from actors.answers import ActorLostError
from actors.links import tcp
from actors.links.direct_lines import LineAddress, Lines, Listening, open_line
from actors.run_options import INLINE, RunOptions
from actors.simulation import actor_pool
from actors.simulation.actor_pool import ActorPool
from actors.simulation.run_passes import run_passes
from actors.starting import machines
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import (
    ContentModel,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import ring
from ksmcluster.bench.tools.shapes import spread_out
from tests.actors.test_engine import SPEC, same
from tests.actors.test_far_mail import cut_off
from tests.actors.test_unshared_mail import forbid_memfd, hide_proc

#: More than little mail between the nodes.
LARGE = spread_out(4, 1 << 15, 3)


#: All actors on this machine, or some on others.
HOSTS = (None, "127.0.0.1")


@pytest.mark.parametrize("host", HOSTS)
def test_only_actors_with_the_token_get_a_line(host: str | None) -> None:
    listening = Listening(4, host)
    name: Any = listening.address.name
    with Client(name, "AF_INET" if host else "AF_UNIX") as stranger:
        stranger.send_bytes(secrets.token_bytes(20))
    Client(name, "AF_INET" if host else "AF_UNIX").close()
    line = open_line(listening.address, 3)
    assert line is not None
    (actor,) = (lines := listening.accept(1))
    lines[actor].send_bytes(b"hello")
    assert (actor, line.recv_bytes()) == (3, b"hello")
    assert open_line(listening.address, 4) is None


def test_no_line_where_nobody_listens() -> None:
    assert open_line(LineAddress(b"\0" + secrets.token_bytes(16), b""), 0) is None


def test_an_actor_whose_connection_broke_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECT_SECONDS", 0.1)
    assert Listening(1, None).accept(1) == {}


Act = Callable[[Connection, bytes], object]


@contextmanager
def lines_to(*acts: Act, host: str | None = None) -> Iterator[Lines]:
    """Lines to as many actors, each of which does so in a thread when it is called, until the end."""
    listening = Listening(len(acts), host)
    ends = [open_line(listening.address, actor) for actor in range(len(acts))]
    threads = []

    def talk(actor: int, request: bytes) -> Any:
        threads.append(threading.Thread(target=acts[actor], args=(ends[actor], request)))
        threads[-1].start()
        return ray.put(None)

    lines = Lines(listening.accept(len(acts)), talk)
    yield lines
    lines.end_talks()
    for thread in threads:
        thread.join()


def echo(line: Connection, request: bytes) -> None:
    while request:
        line.send_bytes(request)
        request = line.recv_bytes()


@pytest.mark.parametrize("host", HOSTS)
def test_answers_are_those_of_the_actors(ray_cluster: str, host: str | None) -> None:
    large = bytes(1 << 20)
    with lines_to(echo, echo, host=host) as lines:
        assert lines.ask({0: large, 1: b""}) == {0: large, 1: b""}
        for turn in range(3):
            assert lines.ask({0: [turn], 1: "one"}) == {0: [turn], 1: "one"}
            if turn == 1:
                lines.end_talks()


def test_an_actor_that_leaves_its_line_is_to_be_called(ray_cluster: str) -> None:
    left = []

    def tell(line: Connection, _request: bytes) -> None:
        line.send_bytes(b"")
        left.append(line.recv_bytes())

    with lines_to(echo, lambda line, _request: line.close(), tell) as lines:
        assert lines.ask({0: "a", 1: "b", 2: "c"}) == {0: "a"}
        assert [actor in lines for actor in range(3)] == [True, False, True]
        assert lines.ask({0: "again"}) == {0: "again"}
    assert left == [b""]


def test_an_actor_that_died_without_a_word(ray_cluster: str) -> None:
    """As a machine without power: Ray learns of it, and its lines stay open."""
    dead = ray.remote(num_cpus=0)(Dead).remote()
    listening = Listening(1, "127.0.0.1")
    _end = open_line(listening.address, 0)
    lines = Lines(listening.accept(1), lambda _actor, _request: dead.die.remote())
    with pytest.raises(ActorLostError, match="process was killed or crashed"):
        lines.ask({0: "a"})


class Dead:
    """Dies when it is called."""

    def die(self) -> None:
        os._exit(1)


@pytest.fixture
def pool(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActorPool]:
    """Its actors and its coordinator are on one Ray node."""
    monkeypatch.setattr(actor_pool, "machines", lambda: machines()[:1])
    with closing(ActorPool()) as pool:
        yield pool


def lines_of(pool: ActorPool, actors: int) -> list[str | None]:
    """Return the family of the line to each actor, None where there is none."""

    def look(coordinator: Any) -> list[str | None]:
        lines = coordinator._fabric._lines
        return [
            socket.socket(fileno=os.dup(lines._lines[actor].fileno())).family.name if actor in lines else None
            for actor in range(actors)
        ]

    found: list[str | None] = ray.get(pool.coordinator().__ray_call__.remote(look))
    return found


@pytest.mark.parametrize("packed", [1, 2])
def test_the_result_is_that_of_calls(pool: ActorPool, ray_cluster: str, packed: int) -> None:
    """One run after the other on the same actors."""
    options = RunOptions(address=ray_cluster, nodes_per_actor=packed)
    for spec in (SPEC, LARGE):
        actors = -(-spec.machine.nodes // packed)
        assert same(list(run_passes(spec, INLINE)), list(run_passes(spec, options, pool=pool)))
        assert lines_of(pool, actors) == ["AF_UNIX"] * actors


def test_machines_have_lines_over_tcp(ray_cluster: str) -> None:
    with closing(ActorPool()) as pool:
        made = list(run_passes(LARGE, RunOptions(address=ray_cluster), pool=pool))
        assert same(made, list(run_passes(LARGE, INLINE)))
        assert lines_of(pool, 4) == ["AF_INET"] * 4


def test_where_one_actor_has_no_line_all_are_called(ray_cluster: str) -> None:
    with closing(ActorPool()) as pool:
        ray.get(pool.actors(4)[2].__ray_call__.remote(cut_off))
        made = list(run_passes(LARGE, RunOptions(address=ray_cluster), pool=pool))
        assert same(made, list(run_passes(LARGE, INLINE)))
        assert lines_of(pool, 4) == ["AF_INET", "AF_INET", None, "AF_INET"]


@pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64", reason="mounts, and knows system calls"
)
@pytest.mark.parametrize("change", [forbid_memfd, hide_proc])
def test_mail_that_cannot_be_shared_goes_by_calls(
    pool: ActorPool, ray_cluster: str, change: Callable[[], None]
) -> None:
    actor = pool.actors(4)[1]
    ray.get(actor.__ray_call__.remote(lambda _: change()))
    made = list(run_passes(LARGE, RunOptions(address=ray_cluster), pool=pool))
    assert same(made, list(run_passes(LARGE, INLINE)))


def test_an_error_in_the_middle_of_a_pass_comes_out_as_itself(pool: ActorPool, ray_cluster: str) -> None:
    """Workers get copies of what they write until no frame is left."""
    region = RegionSpec("r", 100, ContentModel.UNIQUE, writes=(WriteSpec(1e6, start=1e-6),))
    spec = SimulationSpec(
        MachineSpec(2, 250, ring(2)), SPEC.ksm, (ProcessSpec("p", 2, (region,), workers=2),), passes=3
    )
    with pytest.raises(SimulationError, match="out of memory: a process of node"):
        list(run_passes(spec, RunOptions(address=ray_cluster), pool=pool))
    # The run has ended its actors; there are others for the next one.
    spec = replace(spec, machine=replace(spec.machine, frames_per_node=300))
    assert len(list(run_passes(spec, RunOptions(address=ray_cluster), pool=pool))) == 3
