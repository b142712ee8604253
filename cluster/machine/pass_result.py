"""What a run tells while it goes on, and what a pass of ksmd left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cluster.compaction.scenario.node_report import NodeReport
    from cluster.compaction.scenario.relocation_result import RelocationResult


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """The state of the machine at the end of one full pass of ksmd."""

    #: 1, 2, ...
    number: int
    #: int64[nodes] for each of statistics.NODE_NAMES.
    nodes: dict[str, NDArray[np.int64]]
    full_scans: int
    #: Simulated time since the start of ksmd.
    simulated_seconds: float
    #: What it was during the pass.
    pages_to_scan: int
    #: Time that the host took for this pass.
    wall_seconds: float
    #: What compaction after the pass did to each node; nothing without [migration].
    compaction: tuple[NodeReport, ...] = ()
    #: What was moved between nodes after the pass, before the compaction.
    relocated: tuple[RelocationResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ActorsStarting:
    """`done` of `total` node actors answer."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PassStarted:
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class PassDone:
    result: PassResult


Event = ActorsStarting | PassStarted | PassDone
