"""The result of a pass of ksmd, and the events of a run."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.arrays.words import I64
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.machine.census import Census


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """The state of the machine at the end of one full pass of ksmd."""

    #: 1, 2, ...
    number: int
    #: int64[nodes] for each of statistics.NODE_NAMES.
    nodes: dict[str, I64]
    full_scans: int
    #: Simulated time since the start of ksmd.
    simulated_seconds: float
    #: The knob during the pass.
    pages_to_scan: int
    #: Windows of the pass, between which processes write; 0 if ksmd does not run.
    windows: int
    #: Time that this pass took on the host.
    wall_seconds: float
    #: Bytes of the mail that left a process of the host.
    mail_bytes: int = 0
    #: The compaction after the pass, by node; empty without [migration].
    compaction: tuple[NodeReport, ...] = ()
    #: Relocations between nodes after the pass, before the compaction.
    relocated: tuple[RelocationResult, ...] = ()
    #: What ksmd has made of each process and mapping. The last pass of a run has it, and no other.
    census: Census | None = None
    #: Whether the run ends with this pass.
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class RunStarting:
    """All checks are done; Ray, if any, starts now."""


@dataclass(frozen=True, slots=True)
class ActorsStarting:
    """`done` of `total` node actors have started."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PassStarted:
    """`total` is None if it is not known when the run will end."""

    number: int
    total: int | None


@dataclass(frozen=True, slots=True)
class PassDone:
    result: PassResult


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """A checkpoint of so many bytes, which took `seconds` on the host's clock.

    It was written after so many steps: passes, or rounds of `ksmcluster compact`.
    """

    steps: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """A checkpoint could not be written; the run goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointDamaged:
    """A checkpoint cannot be read; the run goes on from the one before it."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunRestarting:
    """An actor died, for this reason; the run goes on from the checkpoint after so many steps, if any."""

    reason: str
    steps: int


Event = (
    RunStarting
    | ActorsStarting
    | PassStarted
    | PassDone
    | CheckpointWritten
    | CheckpointFailed
    | CheckpointDamaged
    | RunRestarting
)
