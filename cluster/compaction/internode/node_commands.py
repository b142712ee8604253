"""Commands to all nodes of a compaction scenario, steps of transfers, and the answers to both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from cluster.arrays.words import I64
from cluster.compaction.internode.transfer import Transfer

AnswerT = TypeVar("AnswerT")


class NodeCommand(Generic[AnswerT]):
    """A command to all nodes. Each node answers with an `AnswerT`."""


class NodeCensus(NamedTuple):
    """Pages of a node: in use; in use and movable as far as can be seen; free for pages of other nodes."""

    used: int
    movable: int
    room: int


@dataclass(frozen=True, slots=True)
class TakeCensus(NodeCommand[NodeCensus]):
    """Count the pages of each node. Changes nothing."""


@dataclass(frozen=True, slots=True)
class OpenTransfers(NodeCommand[None]):
    """Begin these transfers, and forget earlier ones."""

    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class BeginDrain(NodeCommand[None]):
    """Allocate nothing more on these nodes."""

    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FinishDrain(NodeCommand[None]):
    """Take the free pageblocks of these nodes offline. `why`: why movable pages stayed, if any did."""

    nodes: tuple[int, ...]
    relocation: int
    why: str


@dataclass(frozen=True, slots=True)
class TakeDropped(NodeCommand[I64]):
    """Hand over the names of pages that were freed and may be on other nodes. Answer: int64[n]."""


@dataclass(frozen=True, slots=True, eq=False)
class DropForeign(NodeCommand[None]):
    """Free the foreign pages with these names. int64[n]."""

    names: I64


@dataclass(frozen=True, slots=True)
class TransferStep:
    """`node` answers the last message of `peer` in a transfer; the answer has the number `serial`."""

    node: int
    peer: int
    transfer: int
    serial: int


class StepResult(NamedTuple):
    """State of a transfer after a step of a node.

    sent: False if the node has to wait for a locked page. moved: pages that left the source so far; 0 at
    the target, which does not count them.
    """

    sent: bool
    done: bool
    moved: int
