"""What to simulate: plain, frozen descriptions that travel to the actors.

The front door validates a TOML scenario and makes one `SimulationSpec` of it; everything below the front
door reads only these classes. Sizes are in pages of 4 KiB, times in seconds unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cluster.spec.compaction import CompactionSpec, RelocationSpec


class PolicyMode(StrEnum):
    """NUMA placement of new frames (mm/mempolicy.c)."""

    LOCAL = "local"
    BIND = "bind"
    PREFERRED = "preferred"
    INTERLEAVE = "interleave"


class ContentModel(StrEnum):
    """What the pages of a region hold when the simulation starts."""

    #: All bytes zero.
    ZERO = "zero"
    #: Every page differs from every other page of the machine, but for `copies`.
    UNIQUE = "unique"
    #: Page i is the same in every process within `scope`: shared libraries, tables held by each rank.
    REPLICATED = "replicated"
    #: Pages drawn from `distinct` contents of a named pool with a popularity law.
    POOL = "pool"
    #: Pages of a captured process.
    SNAPSHOT = "snapshot"
    #: Never touched: no frame until the first write.
    UNTOUCHED = "untouched"


class Law(StrEnum):
    """How pages of a pool are drawn."""

    UNIFORM = "uniform"
    ZIPF = "zipf"


class Scope(StrEnum):
    """Within what a replicated page is the same."""

    MACHINE = "machine"
    NODE = "node"


class Rewrite(StrEnum):
    """What a write leaves in the page."""

    #: New content, found nowhere else.
    UNIQUE = "unique"
    #: The content that the region's model gave the page at the start.
    ORIGINAL = "original"
    #: A fresh draw from the region's pool; unique content for the other models.
    REDRAW = "redraw"


class Clones(StrEnum):
    """What further processes of a snapshot hold, beyond those captured."""

    #: Contents found in one captured process alone are each clone's own.
    DISTINCT = "distinct"
    #: Exact copies.
    IDENTICAL = "identical"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A placement policy and the nodes that it names (none for `local`)."""

    policy: PolicyMode = PolicyMode.LOCAL
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteSpec:
    """Writes to a region: a Poisson process, the same rate for every page in the hot part."""

    #: Expected writes per hot page and simulated second.
    rate: float
    #: Share of the region's pages that are written at all, from the start of the region; in (0, 1].
    hot_fraction: float = 1.0
    #: Simulated seconds between which writes happen.
    start: float = 0.0
    stop: float = math.inf
    #: On/off phases inside that time: length of a cycle, and the share of it that is on. Period 0: always on.
    period: float = 0.0
    duty: float = 1.0
    content: Rewrite = Rewrite.UNIQUE


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One VMA of every process of a kind."""

    name: str
    pages: int
    model: ContentModel
    mergeable: bool = True
    #: None: the policy of the process.
    policy: PolicySpec | None = None
    #: `unique`: how many pages of the region hold each content.
    copies: int = 1
    scope: Scope = Scope.MACHINE
    #: `pool`: its name (regions that name the same pool share contents), size and law.
    pool: str = ""
    distinct: int = 0
    law: Law = Law.UNIFORM
    #: Exponent s of the Zipf law: the k-th content (k = 1, 2, ...) has weight k**-s.
    exponent: float = 1.0
    writes: tuple[WriteSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A kind of process: `count` of them in all, spread over the nodes in blocks (rank order)."""

    name: str
    count: int
    regions: tuple[RegionSpec, ...]
    policy: PolicySpec = PolicySpec()
    #: Snapshot file whose processes these are (their regions come from it); process i of the kind is
    #: process i modulo the number of processes in the file.
    snapshot: str | None = None
    #: Simulated seconds between two moments of the snapshot; None: as captured.
    replay_interval: float | None = None
    clones: Clones = Clones.DISTINCT


@dataclass(frozen=True, slots=True, eq=False)
class MachineSpec:
    nodes: int
    #: Physical frames of each node.
    frames_per_node: int
    #: int64[nodes, nodes], SLIT units: 10 on the diagonal, larger is farther.
    distance: NDArray[np.int64]
    #: "symbolic" or "bytes".
    content: str = "symbolic"
    #: The trees keep the kernel's shape, so that what hangs on it is exact; for small machines with symbolic
    #: contents. With merge_across_nodes=1 one node keeps all trees.
    tree_shape: bool = False


@dataclass(frozen=True, slots=True)
class KsmSpec:
    """The knobs of /sys/kernel/mm/ksm, and the kernel whose rules apply."""

    kernel: str = "6.18"
    run: int = 1
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    merge_across_nodes: int = 1
    max_page_sharing: int = 256
    use_zero_pages: int = 0
    smart_scan: int = 1
    stable_node_chains_prune_millisecs: int = 2000
    #: "none" or "scan-time"; the latter has pages_to_scan of its own (cluster.ksm.advisor).
    advisor_mode: str = "none"
    advisor_max_cpu: int = 70
    advisor_max_pages_to_scan: int = 30000
    advisor_min_pages_to_scan: int = 500
    #: Seconds.
    advisor_target_scan_time: int = 200
    #: "one", or "per-node": a ksmd for each node, which no kernel has; with trees per node and no advisor.
    threads: str = "one"


@dataclass(frozen=True, slots=True)
class CostSpec:
    """Simulated ksmd CPU time, in nanoseconds, of what it does to one page (docs/model.md says whence)."""

    visit: float = 270.0
    checksum: float = 550.0
    tree_level: float = 206.0
    merge: float = 1900.0


@dataclass(frozen=True, slots=True)
class SimulationSpec:
    machine: MachineSpec
    ksm: KsmSpec
    processes: tuple[ProcessSpec, ...]
    seed: int = 1
    #: Full ksmd passes to run.
    passes: int = 6
    #: Writes happen between scan windows; so many windows make a pass.
    windows_per_pass: int = 1
    cost: CostSpec = field(default_factory=CostSpec)
    #: Memory comes from a buddy allocator, shared with drivers, and is compacted after each pass. None: no.
    migration: CompactionSpec | None = None
    #: Frames of processes that move between nodes after passes; only with `migration`.
    relocations: tuple[RelocationSpec, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether processes write after the start."""
        return any(kind.snapshot or any(region.writes for region in kind.regions) for kind in self.processes)
