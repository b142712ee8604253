"""Supersteps over Ray actors: one call for each actor; mail goes from actor to actor."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from actors.answers import answers
from actors.links.direct_lines import Lines, Listening
from actors.links.far_mail import FarAddress, FarMachine
from actors.links.tcp import own_host
from cluster.machine.node import Report
from cluster.spec.scenario import SimulationSpec
from cluster.wire.commands import Command


class RayFabric:
    """The coordinator's way to the nodes (implements `cluster.machine.fabric.Fabric`).

    Little mail comes with an actor's answer. More lies in memory that the actors of a machine map, to which
    it goes over TCP if this is another machine; or else in objects of Ray. The coordinator passes on bytes
    and references; it never reads the mail.
    """

    def __init__(self, nodes_of: list[list[int]], actors: list[Any], machines: list[str]) -> None:
        """Take each actor's nodes, its handle, and the Ray node that it is on."""
        self._nodes_of = nodes_of
        self._actors = actors
        self._machines = machines
        #: The actors of each Ray node, ascending.
        self._on_machine: dict[str, list[int]] = {}
        for number, machine in enumerate(machines):
            self._on_machine.setdefault(machine, []).append(number)
        self._actor_of = [actor for actor, nodes in enumerate(nodes_of) for _ in nodes]
        self.nodes = len(self._actor_of)
        self._seq = 0
        #: What other actors sent to each actor in the last superstep: references to mail, and pickled mail
        #: by sender.
        self._mail: dict[int, list[Any]] = {}
        self._pickled_mail: dict[int, dict[int, bytes]] = {}
        #: Bytes of all mail between actors so far.
        self.mail_bytes = 0
        #: The nodes that mail is under way to.
        self._addressed: set[int] = set()
        #: The calls that give the actors their nodes.
        self._taking: list[Any] = []
        self._listening: Listening | None = None
        self._lines = Lines({}, self._begin_talk)
        #: Whether lines may be used.
        self._is_direct = False

    def take(self, spec: SimulationSpec, snapshots: Any, *, lines: bool = False) -> None:
        """Give the actors the empty nodes of a new machine; the next superstep waits until they have them.

        `snapshots` refers to a Mapping[str, CapturedPages], which all actors of a machine share. With
        `lines`, the actors get lines to this process.
        """
        import ray

        if lines:
            is_alone = set(self._machines) == {ray.get_runtime_context().get_node_id()}
            # Where there are no such sockets, all supersteps are calls.
            with suppress(OSError):
                self._listening = Listening(len(self._actors), None if is_alone else own_host())
        # Put once, not sent to each actor.
        inputs = ray.put(spec), snapshots, self._listening and self._listening.address
        self._taking = [
            actor.take.remote(nodes, self._actor_of, self._on_machine[machine], *inputs)
            for nodes, actor, machine in zip(self._nodes_of, self._actors, self._machines, strict=True)
        ]

    def wait(self) -> None:
        """Wait until the actors have their nodes."""
        taken = answers(self._taking)
        if taken:
            self._introduce([address for _, address in taken])
        if self._listening is not None:
            connected = sum(is_connected for is_connected, _ in taken)
            self._lines = Lines(self._listening.accept(connected), self._begin_talk)
        self._taking, self._listening = [], None

    def _introduce(self, addresses: list[FarAddress | None]) -> None:
        """Tell each actor where the other machines take its mail; `addresses` are the actors' own."""
        taking: dict[str, list[FarMachine]] = {}
        for machine, on in self._on_machine.items():
            actors = frozenset(on)
            taking[machine] = [FarMachine(actors, to) for to in map(addresses.__getitem__, on) if to]
        for sender, actor in enumerate(self._actors):
            # Those of a machine share the work.
            others = [
                of_machine[sender % len(of_machine)]
                for machine, of_machine in taking.items()
                if machine != self._machines[sender] and of_machine
            ]
            if others:
                actor.meet.remote(others)

    @contextmanager
    def direct(self) -> Iterator[None]:
        """Reach actors with lines by these in the block; they take no calls then until `end_talks`."""
        self._is_direct = True
        try:
            yield
        except BaseException:
            self._lines.close()
            raise
        finally:
            self._is_direct = False

    def end_talks(self) -> None:
        """Let all actors take calls."""
        self._lines.end_talks()

    def superstep(self, command: Command | None) -> list[Report]:
        """Step every node that gets a command or messages; return their reports, by ascending node."""
        self._seq += 1
        packed = pickle.dumps(command, 5)
        to_of = {actor: self._called(nodes, command) for actor, nodes in enumerate(self._nodes_of)}
        stepped = self._step(packed, {actor: to for actor, to in to_of.items() if to})
        while unreadable := {a: answer for a, answer in stepped.items() if isinstance(answer, list)}:
            for reader, senders in unreadable.items():
                for sender in senders:
                    del self._pickled_mail[reader][sender]
            self._ask_for_objects(unreadable, self._seq - 1)
            stepped |= self._step(packed, {actor: to_of[actor] for actor in unreadable})
        self._mail, self._pickled_mail = {}, {}
        reports: list[Report] = []
        unsent: dict[int, list[int]] = {}
        for actor, (of_actor, sent, mail_bytes) in stepped.items():
            reports += of_actor
            self.mail_bytes += mail_bytes
            for receiver, pickled in sent.items():
                if pickled is None:
                    unsent.setdefault(receiver, []).append(actor)
                else:
                    self._pickled_mail.setdefault(receiver, {})[actor] = pickled
        self._ask_for_objects(unsent, self._seq)
        self._addressed = {node for report in reports for node in report.to}
        return reports

    def _called(self, nodes: list[int], command: Command | None) -> list[int]:
        """Return those of an actor's nodes that get the command or messages."""
        return nodes if command is not None else [node for node in nodes if node in self._addressed]

    def _step(self, command: bytes, to_of: dict[int, list[int]]) -> dict[int, Any]:
        """Step nodes of each actor; return what each call returns, unpickled."""
        requests = {
            actor: (self._seq, command, to, self._pickled_mail.get(actor, {})) for actor, to in to_of.items()
        }
        can_talk = self._is_direct and all(a in self._lines and a not in self._mail for a in requests)
        stepped = self._lines.ask(requests) if can_talk else {}
        if len(stepped) < len(requests):
            # Actors that have not answered are called. A call that repeats a request changes nothing.
            self._lines.end_talks()
            stepped |= self._call({actor: of for actor, of in requests.items() if actor not in stepped})
        return {actor: stepped[actor] for actor in requests}

    def _call(self, requests: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        refs = [
            self._actors[actor].step.remote(*request, *self._mail.get(actor, []))
            for actor, request in requests.items()
        ]
        self.wait()
        return dict(zip(requests, map(pickle.loads, answers(refs)), strict=True))

    def _begin_talk(self, actor: int, request: bytes) -> Any:
        return self._actors[actor].talk.options(max_task_retries=0).remote(request)

    def _ask_for_objects(self, senders_of: Mapping[int, list[int]], seq: int) -> None:
        """Let senders put mail of a superstep into Ray's store, as an object for each machine of readers.

        `senders_of` are the senders by reader.
        """
        readers: dict[tuple[int, str], set[int]] = {}
        for reader, senders in senders_of.items():
            for sender in senders:
                readers.setdefault((sender, self._machines[reader]), set()).add(reader)
        if readers:
            self._lines.end_talks()
        for (sender, _), of_machine in readers.items():
            mail = self._actors[sender].send_again.remote(seq, of_machine)
            for reader in of_machine:
                self._mail.setdefault(reader, []).append(mail)
