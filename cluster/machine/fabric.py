"""How the coordinator reaches the nodes: in supersteps of one command, or of messages alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from cluster.machine.host import UNTUNED, Host, MessageMemory
from cluster.machine.node import Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.commands import Command
from cluster.wire.mailbox import Mail
from cluster.wire.messages import QUIET, Kind

A = TypeVar("A")


class Fabric(Protocol):
    """Carries commands and messages. Messages sent in one superstep arrive in the next."""

    nodes: int

    def superstep(self, command: Command | None) -> list[Report]:
        """Step every node that gets a command or messages; return their reports, by ascending node."""


class Exchange:
    """Runs commands one after the other; each finds the effects of all commands before it."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._left = QUIET
        #: Of the last superstep.
        self.reports: list[Report] = []

    def run(self, command: Command, *, leave: frozenset[Kind] = QUIET) -> list[Report]:
        """Run a command and the supersteps that its messages cause; return the reports on the command itself.

        Messages of the kinds in `leave` may arrive together with the next command.
        """
        first = self.begin(command)
        self._left = leave
        self.settle()
        return first

    def answers(self, command: Command, kind: type[A]) -> list[A]:
        """Run a command; return the answers by ascending node. Raise TypeError if one is no `kind`."""
        return _answers(self.run(command), kind)

    def answer(self, command: Command, kind: type[A]) -> A:
        """Run a command that a single node answers, that of a process; return the answer."""
        (answer,) = self.answers(command, kind)
        return answer

    def begin(self, command: Command) -> list[Report]:
        """Run the superstep of a command alone; its messages arrive before the next command.

        If `ask` comes next, they arrive together with the question.
        """
        self.settle()
        return self._step(command)

    def ask(self, question: Command, kind: type[A]) -> list[A]:
        """Return the answers of the nodes after all messages have arrived, by ascending node."""
        reports = self._step(question)
        # Even a quiet message may change an answer.
        while any(report.sent for report in reports):
            reports = self._step(question)
        return _answers(reports, kind)

    def settle(self) -> None:
        """Deliver all messages but those that may arrive together with the next command."""
        while any(report.sent - self._left for report in self.reports):
            self._step(None)

    def settle_all(self) -> None:
        """Deliver all messages."""
        self._left = frozenset()
        self.settle()

    def _step(self, command: Command | None) -> list[Report]:
        if command is not None:
            self._left = QUIET
        self.reports = self._fabric.superstep(command)
        return self.reports


def _answers(reports: list[Report], kind: type[A]) -> list[A]:
    answers = []
    for report in reports:
        if isinstance(report.answer, kind):
            answers.append(report.answer)
        elif report.answer is not None:
            raise TypeError(f"{report.answer} is no {kind.__name__}")
    return answers


class InlineFabric:
    """All nodes in this process, without Ray."""

    def __init__(
        self,
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
        memory: MessageMemory = UNTUNED,
    ) -> None:
        self.nodes = spec.machine.nodes
        self.host = Host(list(range(self.nodes)), spec, snapshots, memory)
        self._sent: list[Mail] = []

    def superstep(self, command: Command | None) -> list[Report]:
        if command is not None:
            to = list(range(self.nodes))
        else:
            to = sorted({node for mail in self._sent for node in mail.to})
        reports, self._sent = self.host.step(command, self._sent, to)
        return reports
