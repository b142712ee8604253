"""A Ray actor with one NUMA node or several. It wraps a `cluster.machine.host.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial

from actors.checkpoint.node_states import SavedNodes
from actors.compaction.numbered_calls import NumberedCalls
from actors.links.direct_lines import LineAddress, open_line
from actors.links.far_mail import FarAddress, FarMachine, receive_far, send_far
from actors.links.mail_file import MailFile, columns_file, parcels_file
from actors.links.shared_mail import SharedMail, read_mail
from actors.links.tcp import own_host
from actors.placement import node_ranges
from actors.tuning.heap import Heap
from actors.tuning.slim_actor import SlimActor
from cluster.arrays.words import NODE_FIELD_SIZE
from cluster.machine.host import Host
from cluster.machine.node import Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.mailbox import Mail, among, merged
from cluster.wire.parcels import Parcel, packed, together

#: Mail up to this size comes with an actor's answer, in bytes: each object costs Ray more time.
LITTLE_MAIL = 1 << 18
#: Larger mail goes in parcels if these have on average fewer bytes.
LARGE_PARCEL = 1 << 18


class NodeActor(SavedNodes[Host], SlimActor):
    """Passes commands and mail to its nodes, and sorts what they send by receiving actor."""

    def __init__(self) -> None:
        super().__init__()
        self._shared_mail = SharedMail()
        #: Where it takes mail for its machine.
        self._address: FarAddress | None = None
        #: Where TCP does not reach, and whether there may be a line to the coordinator: a firewall is not
        #: tried again in each run.
        self._unreached: set[FarAddress] = set()
        self._may_talk = True

    def take(
        self,
        nodes: list[int],
        actor_of: list[int],
        near: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
        coordinator: LineAddress | None = None,
    ) -> tuple[bool, FarAddress | None]:
        """Replace the actor's nodes by these, empty.

        Returns whether it has a line to the coordinator, and where it takes mail for its machine.

        `nodes` are in a row, `actor_of[n]` is the actor of node n, and `near` are the actors on the same Ray
        node, this one included.
        """
        self._host = Host(nodes, spec, snapshots, Heap())
        self._calls = NumberedCalls()
        self._shared_mail.close()
        self._actor_of = actor_of
        self._nodes_of = node_ranges(actor_of)
        #: The actors that mail in shared memory reaches, and other machines.
        self._near = set(near)
        self._far: list[FarMachine] = []
        #: Those whose mail goes through Ray.
        self._cut_off: set[int] = set()
        #: Its own nodes are low..high-1.
        self._low, self._high = nodes[0], nodes[-1] + 1
        self._seq = 0
        self._last_answer = b""
        #: The mail that its nodes sent to each other in the last superstep.
        self._kept: list[Mail] = []
        #: All that it sent in the last two supersteps, where not all of it was shared with near actors.
        self._sent_far: dict[int, list[Mail]] = {}
        self._line = open_line(coordinator, actor_of[self._low]) if coordinator and self._may_talk else None
        self._may_talk &= coordinator is None or self._line is not None
        if self._address is None and len(near) <= max(actor_of):
            with suppress(OSError):  # a sandbox, TLS, or no shared memory
                self._address = receive_far(own_host(), self._shared_mail)
        return self._line is not None, self._address

    def meet(self, machines: list[FarMachine]) -> None:
        """Send mail to these other machines."""
        self._far = machines

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Let a compactor of each (node, compactor) pair take a turn; return which are done.

        The nodes differ. A repeated call changes nothing.
        """
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def step(
        self, seq: int, command: bytes, to: list[int], pickled_mail: Mapping[int, bytes], *mail: list[Mail]
    ) -> bytes:
        """Run superstep `seq` of the nodes `to`; a repeated call returns the first one's answer.

        `pickled_mail`, by actor, and `mail` come from other actors; rows for nodes of other actors are
        ignored. Returns, pickled: the reports; for each receiving actor its mail in bytes, or None if it is
        to be had by `send_again`; how many bytes all this mail has. Or instead, a list of the senders whose
        mail it cannot read, if there are any: nothing is done then.
        """
        if seq != self._seq:
            self._shared_mail.begin(seq)
            self._sent_far = {n: sent for n, sent in self._sent_far.items() if n + 1 >= seq}
            self._last_answer = b""
            read, parcels, unreadable = read_mail(pickled_mail)
            if unreadable:
                return pickle.dumps(unreadable, 5)
            arrived = [sent for part in (read, *mail) for sent in part]
            received = together(self._kept + among(arrived, self._low, self._high), parcels)
            self._kept = read = arrived = []
            parcels = []
            reports, sent = self._host.step(pickle.loads(command), received, to)
            self._kept = among(sent, self._low, self._high)
            below, above = (0, self._low), (self._high, NODE_FIELD_SIZE)
            others = merged(among(sent, *below) + among(sent, *above))
            self._last_answer = pickle.dumps(self._answer(seq, reports, others), 5)
            self._seq = seq
        return self._last_answer

    def talk(self, request: bytes) -> None:
        """Run the superstep of this request, then those of requests on the line, until b"" comes.

        A request is the pickled arguments of `step`, which answers on the line.
        """
        line = self._line
        assert line is not None
        while request:
            try:
                answer = self.step(*pickle.loads(request))
            except BaseException:
                # The coordinator waits for the line, and looks at this call when it ends.
                line.close()
                raise
            try:
                line.send_bytes(answer)
                request = line.recv_bytes()
            except (EOFError, OSError):  # the coordinator has died, or its run has failed
                return

    def send_again(self, seq: int, readers: Set[int]) -> list[Mail]:
        """Return the mail of superstep `seq` to these actors, which could not read it.

        From now on, its mail to them goes through Ray.
        """
        self._cut_off |= readers
        self._near -= readers
        # If it has sent to others than near actors, that is all of its mail.
        return self._among(self._sent_far.get(seq) or self._shared_mail.take_back(seq), readers)

    def _answer(
        self, seq: int, reports: list[Report], sent: list[Mail]
    ) -> tuple[list[Report], dict[int, bytes | None], int]:
        """Return what `step` does; `sent` is the mail to nodes of other actors."""
        to = {self._actor_of[node] for report in reports for node in report.to}
        receivers = sorted(to - {self._actor_of[self._low]})
        of: dict[int, bytes | None] = dict.fromkeys(receivers)
        if (size := _bytes_of(sent)) <= LITTLE_MAIL:
            parcels = self._parcels(sent, receivers)
            of |= {actor: pickle.dumps(Parcel(self._low, data), 5) for actor, data in parcels.items()}
            return reports, of, size
        sent, file_to = self._packing(sent, receivers)
        if near := self._near.intersection(receivers):
            of |= self._shared_mail.put(seq, file_to(near))
        if others := {actor for actor in receivers if of[actor] is None}:
            self._sent_far[seq] = sent
            of |= self._sent(seq, file_to, others - self._cut_off)
        return reports, of, _bytes_of(sent)

    def _packing(
        self, sent: list[Mail], receivers: Sequence[int]
    ) -> tuple[list[Mail], Callable[[Collection[int]], MailFile]]:
        """Return mail as it is to be kept, and what makes a file with that to some of its receivers."""
        if _bytes_of(sent) < LARGE_PARCEL * len(receivers):
            parcels = self._parcels(sent, receivers)
            return sent, lambda to: parcels_file(self._low, {actor: parcels[actor] for actor in to})
        narrow = [mail.narrowed() for mail in sent]
        return narrow, lambda to: columns_file(self._among(narrow, to), to)

    def _parcels(self, sent: list[Mail], receivers: Sequence[int]) -> dict[int, bytes]:
        """Return the parcel for each receiving actor."""
        nodes = [self._nodes_of[actor] for actor in receivers]
        return dict(zip(receivers, packed(sent, nodes), strict=True))

    def _among(self, mail: list[Mail], actors: Collection[int]) -> list[Mail]:
        """Return the mail to these actors, and maybe to others, as views."""
        return among(mail, self._nodes_of[min(actors)][0], self._nodes_of[max(actors)][1])

    def _sent(
        self, seq: int, file_to: Callable[[Collection[int]], MailFile], receivers: Set[int]
    ) -> dict[int, bytes]:
        """Send mail to the machines of these actors; return where it is, for each one that is reached."""
        machines = [of for of in self._far if of.actors & receivers and of.address not in self._unreached]
        mail = [(file_to(machine.actors & receivers), machine.address) for machine in machines]
        reached: dict[int, bytes] = {}
        for machine, locations in zip(machines, send_far(seq, mail), strict=True):
            if not locations:
                self._unreached.add(machine.address)
            reached |= locations
        return reached


def _bytes_of(mail: list[Mail]) -> int:
    return sum(sent.nbytes for sent in mail)
